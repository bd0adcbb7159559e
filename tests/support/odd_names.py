"""Names that a reader of tables, YAML or paths would take for something else."""

#: What pandas, YAML or a spreadsheet reads as nothing, a number, a truth or a formula.
TAKEN_FOR_OTHERS = (
    *("NA", "null", "None", "nan", "NaN", "N/A", "~", "1e5", "1E5", "001", "0o17", "1_000", "0x1F"),
    *("True", "yes", "no", "off", "inf", ".inf", "=1", "+1", "@x", "-", "--", "#x", "mean", "good"),
)
#: Also marks of text and of CSV, and line ends.
STRANGE = (
    *TAKEN_FOR_OTHERS,
    *(" a ", "a,b", "a;b", 'a"b', '"', "'", "it's", "a\tb", "a\u2028b", "a\x85b", "\u202eb"),
    *("a\rb", "\r", "a\nb", "a\r\nb", "\\", "\\N", "$", "%41", "a?b#c", "<b>", "{{x}}", "&amp;"),
    *("ünï 🙂", "製品"),
)
