"""Oracles: scores [n] → the hard answer [n], the vertex y with the largest ⟨scores, y⟩.

vertices.py         one_hot_argmax and top_k_mask, by selection.py
ranking.py          the rank of each score
dynamic_oracle.py   any dynamic program from its recursion
best_chain.py, best_alignment.py, best_grid_path.py
                    three of them, with their recursions; tables go by diagonals.py
row_oracle.py, host_oracle.py
                    your own solver, of rows, or in NumPy
"""
