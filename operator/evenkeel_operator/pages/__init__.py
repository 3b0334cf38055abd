"""Pages that a person opens in a browser: one file each, without scripts and without anything to fetch.

markup     values become HTML; what is not markup already is escaped
axes       where ticks stand: of time, of numbers, of odds
figure     a plot as SVG, once for wide windows and once for narrow ones
parts      sections, tables, chips, notes
document   the frame of a page: its style, light and dark, and what it may load (nothing)
"""
