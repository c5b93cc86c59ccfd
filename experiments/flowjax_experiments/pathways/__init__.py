"""Pathways: which edges an answer needs."""
