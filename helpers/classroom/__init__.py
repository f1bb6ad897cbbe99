"""For learners and teachers: copies without solutions, JupyterLab, and executed notebooks."""
