"""Reports of experiments, from their files alone. The modules in the order of the work:

reading, data     the experiment's folder → frozen values
scores            test scores over seeds, intervals, doubts
figures, plots, effect_charts, style    the charts
head, result, detail, search, cost the sections, built of blocks
summary           report.json
templates/        the same sections as HTML and as Markdown
"""
