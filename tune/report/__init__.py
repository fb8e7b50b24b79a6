"""Reports of experiments, from their files alone. The modules in the order of the work:

reading, data     the experiment's folder → frozen values
scores, effects   test scores over seeds, intervals, doubts; effects of the parameters
head, result, adaptive, detail, search, parameters, cost    the sections: each its words, tables and charts
blocks, style     what sections are built of, and the look of charts
summary, writer   report.json; the sections as HTML and as Markdown, by templates/
comparison        several searches side by side
"""
