"""Indexes of passages: their files, the engines that search them (embedded, or a Qdrant server), and their aliases."""
