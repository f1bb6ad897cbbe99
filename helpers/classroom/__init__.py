"""For learners and teachers: copies without solutions, JupyterLab, and assignments."""
