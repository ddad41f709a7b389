"""Logs of full information: outcomes of every action, and labelled texts."""
