"""Pages for people: one self-contained HTML file each, pictures as inline SVG, no script and no network.

  markup.py    elements as values; everything that is not an element is escaped
  frame.py     the page around the sections: title, style, what a browser may load (nothing)
  scale.py     round numbers along an axis
  flow.py      stages and what flows between them     bars.py    stacked bars against a capacity
  scatter.py   choices as points                      lanes.py   who does what when
  plan_page.py the plan of an experiment              what `specc plan --html` writes

A picture takes plain numbers and names and gives an element; only `plan_page` knows plans.
"""
