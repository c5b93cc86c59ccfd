"""A procedural benchmark: short videos of moving coloured shapes, with questions about them.

world.py      colours, shapes, motions, and which combinations only the test split has
scene.py      a scene over time
paint.py      a scene as frames
questions.py  what can be asked of a scene, and its captions
tasks.py      balanced questions of each task
benchmark.py  the benchmark on disk, in TVBench's layout
"""
