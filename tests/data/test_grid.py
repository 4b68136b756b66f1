"""How grids differ, in words."""

import numpy as np

from semialign.data.grid import Grid, difference

OBLIQUE = np.array([[1.5, 0.2, -0.1, 7], [-0.3, 0.8, 0.2, -40], [0.1, -0.1, 2.5, 3.25], [0, 0, 0, 1]])


def test_difference_in_words() -> None:
    grid = Grid((4, 5, 6), OBLIQUE)
    moved, turned, finer = OBLIQUE.copy(), OBLIQUE.copy(), OBLIQUE.copy()
    moved[0, 3] += 1
    turned[:3, 0] *= -1
    finer[:3, 1] *= 0.9
    assert difference(grid, grid) is None
    assert "size" in str(difference(Grid((4, 5, 7), OBLIQUE), grid))
    assert "position" in str(difference(Grid((4, 5, 6), moved), grid))
    assert "orientation" in str(difference(Grid((4, 5, 6), turned), grid))
    assert "spacing" in str(difference(Grid((4, 5, 6), finer), grid))
