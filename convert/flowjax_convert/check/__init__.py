"""`flowjax check`: a converted model against its checkpoint in `transformers`, stage by stage."""
