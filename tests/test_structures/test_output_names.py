from mmmap.structures.output_names import dataset_names, output_names


def test_folder_and_file():
    paths = ['s3dis/Area_1/office_1.npz', 's3dis/Area_2/office_1.npz', 'data/shapes.npz:points[7]', 'data/a b.v1.ply']
    assert list(output_names(paths).values()) == [
        'Area_1_office_1',
        'Area_2_office_1',
        'data_shapes_points_7',
        'data_a_b_v1',
    ]


def test_equal_names_are_told_apart():
    paths = ['a/Area_1/office_1.npz', 'b/Area_1/office_1.npz', 'a/Area_1/office_1.ply', 'a/Area_1/office_1.npz']
    names = output_names(paths)
    assert list(names.items()) == [
        (paths[0], 'Area_1_office_1'),
        (paths[1], 'Area_1_office_1_2'),
        (paths[2], 'Area_1_office_1_3'),
    ]
    # A number that is another one's name.
    assert len(set(output_names(['x/a.npz', 'y/x/a.npz', 'z/x/a_2.npz']).values())) == 3


def test_the_folder_of_a_file_beside(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert output_names(['room.npz']) == {'room.npz': f'{tmp_path.name}_room'}


def test_data_sets_of_anything():
    assert dataset_names([1, 2]) == {}
