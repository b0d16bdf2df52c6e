//! What a file becomes, and what is said about one that is not right.

use proptest::prelude::*;

use super::*;

/// Parses a text and shows the findings as `line:column code message`.
fn parse_text(text: &str) -> (Option<Node>, Vec<String>) {
    let mut diagnostics = Diagnostics::default();
    let file = SourceFile { path: "r.yaml".into(), text: text.into() };
    let node = parse(&file, &mut diagnostics);
    let shown = diagnostics
        .sorted()
        .iter()
        .map(|one| format!("{}:{} {} {}", one.span.line, one.span.column, one.code, one.message))
        .collect();
    (node, shown)
}

/// A tree as one line: `{key@line:column+len=value}`; quoted scalars in quotes.
fn show(node: &Node) -> String {
    let place = |span: &Span| format!("@{}:{}+{}", span.line, span.column, span.len_chars);
    match &node.kind {
        Kind::Scalar(scalar) if scalar.quoted => format!("{:?}{}", scalar.text, place(&node.span)),
        Kind::Scalar(scalar) => format!("{}{}", scalar.text, place(&node.span)),
        Kind::List(items) => {
            format!("[{}]{}", items.iter().map(show).collect::<Vec<_>>().join(", "), place(&node.span))
        }
        Kind::Map(entries) => {
            let shown: Vec<String> = entries
                .iter()
                .map(|(key, value)| format!("{}{}={}", key.text, place(&key.span), show(value)))
                .collect();
            format!("{{{}}}{}", shown.join(", "), place(&node.span))
        }
    }
}

#[test]
fn scalars_keep_their_text_and_place() {
    let text = "a: NO\nb: 'NO'\nc: 0123\nd: |\n  two\n  lines\ne: [1.10, \"ö\", x]\n\"f g\": ~\nh:\n- 1\n";
    let (node, findings) = parse_text(text);
    assert!(findings.is_empty(), "{findings:?}");
    let shown = show(&node.expect("a tree"));
    let expected = "{a@1:1+1=NO@1:4+2, b@2:1+1=\"NO\"@2:4+4, c@3:1+1=0123@3:4+4, d@4:1+1=\"two\\nlines\\n\"@5:3+3, \
                    e@7:1+1=[1.10@7:5+4, \"ö\"@7:11+3, x@7:16+1]@7:4+1, f g@8:1+5=~@8:8+1, h@9:1+1=[1@10:3+1]@10:3+1}@1:1+1";
    assert_eq!(shown, expected);
}

#[test]
fn every_duplicate_is_reported_and_the_first_is_kept() {
    let (node, findings) = parse_text("a: 1\nb: {x: 1, x: 2}\na: 3\n'a': 4\n");
    assert_eq!(
        findings,
        [
            "2:11 E0102 the key `x` stands twice in this map, first at line 2, column 5",
            "3:1 E0102 the key `a` stands twice in this map, first at line 1, column 1",
            "4:1 E0102 the key `a` stands twice in this map, first at line 1, column 1",
        ]
    );
    assert_eq!(show(&node.expect("a tree")), "{a@1:1+1=1@1:4+1, b@2:1+1={x@2:5+1=1@2:8+1}@2:4+1}@1:1+1");
}

/// As a fuzzer found it: the place of a mistake lies in the file, whatever the parser looked at behind it.
#[test]
fn a_mistake_is_never_placed_behind_the_end_of_a_line() {
    let text = format!("rrules:\n-sules:\n\rs\0\0\0rype{}|", "Q".repeat(110));
    let file = SourceFile { path: "r.yaml".into(), text: text.as_str().into() };
    let mut diagnostics = Diagnostics::default();
    super::parse(&file, &mut diagnostics);
    let longest = text.split(['\n', '\r']).map(|line| line.chars().count()).max().unwrap_or(0);
    let findings = diagnostics.sorted();
    assert!(!findings.is_empty());
    assert!(findings.iter().all(|finding| finding.span.column as usize <= longest + 1), "{findings:?}");
}

#[test]
fn mistakes_are_named_where_they_are() {
    let cases: &[(&str, &[&str])] = &[
        ("", &[]),
        ("# only a comment\n", &[]),
        ("a: b: c\n", &["1:5 E0101 a second `: ` on this line, or wrong indentation"]),
        ("a:\n\tb: 1\n", &["2:1 E0101 a tab stands where YAML wants spaces"]),
        ("a: 'open\n", &["1:4 E0101 a quote is not closed"]),
        ("a: [1, 2\nb: 3\n", &["2:2 E0101 a `:` cannot stand here: is a bracket before it left open?"]),
        ("a: {b: 1\n", &["1:4 E0101 the bracket `{` is not closed"]),
        ("a: [1, 2\n", &["1:4 E0101 the bracket `[` is not closed"]),
        ("a: [1}\n", &["1:4 E0101 the bracket `[` is closed by `}`"]),
        ("a: 1\n  b: 2\n", &["2:4 E0101 a second `: ` on this line, or wrong indentation"]),
        ("a: @x\n", &["1:4 E0101 text cannot begin with `@`"]),
        ("a: \"\\d\"\n", &["1:4 E0101 an unknown escape in double quotes"]),
        ("a: *bot*\n", &["1:4 E0106 `*bot*` is a YAML alias, and no `&bot*` stands before it"]),
        ("a: &x [*x]\n", &["1:8 E0106 the alias stands inside the value that it names"]),
        ("a: !!set x\n", &["1:10 E0108 the YAML tag `!!set` has no meaning here"]),
        ("a: {{ event.x }}\n", &["1:5 E0103 a key must be text, not a map"]),
        (
            "? [a]\n: 1\n: 2\n",
            &["1:3 E0103 a key must be text, not a list", "3:1 E0103 a key must be text, not nothing"],
        ),
        ("a: &x {b: 1}\nc:\n  <<: *x\n", &["3:3 E0109 YAML 1.2 has no merge key `<<`"]),
        ("a: 1\n---\nb: 2\n", &["2:1 E0107 a second YAML document begins here; one file holds one document"]),
    ];
    let wrong: Vec<String> = cases
        .iter()
        .map(|(text, expected)| (text, expected, parse_text(text).1))
        .filter(|(_, expected, findings)| findings != *expected)
        .map(|(text, _, findings)| format!("{text:?} gives {findings:?}"))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn aliases_are_copies() {
    let (node, findings) = parse_text("a: &x [1, 2]\nb: *x\n");
    assert!(findings.is_empty(), "{findings:?}");
    let node = node.expect("a tree");
    let entries = node.entries().expect("a map");
    assert_eq!(entries[0].1, entries[1].1);
}

#[test]
fn bombs_stay_small() {
    let mut levels = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..9 {
        let alias = format!("*a{}", level - 1);
        levels.push_str(&format!("a{level}: &a{level} [{}]\n", vec![alias; 10].join(", ")));
    }
    let wide = format!("a: &a {}\nb: [{}]\n", "x".repeat(1_000_000), vec!["*a"; 1000].join(", "));
    let many = format!("[{}]", "x, ".repeat(MAX_YAML_NODES));
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    let mut tall = String::from("a0: &a0 [x]\n");
    for level in 1..100 {
        tall.push_str(&format!("a{level}: &a{level} [*a{}]\n", level - 1));
    }
    let huge = "#".repeat(MAX_YAML_BYTES + 1);
    let expected =
        [(levels, "E0104"), (wide, "E0104"), (many, "E0104"), (deep, "E0105"), (tall, "E0105"), (huge, "E0104")];
    for (text, code) in expected {
        let (node, findings) = parse_text(&text);
        assert!(node.is_none());
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert!(findings[0].contains(code), "{findings:?}");
    }
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "[ \\-a-c:{}\\[\\]&*!|>'\"%@`#,?~<\n\t\r0-9\\\\\u{feff}é.]{0,80}") {
        let (node, findings) = parse_text(&text);
        for finding in &findings {
            prop_assert!(finding.starts_with(|c: char| c.is_ascii_digit()));
        }
        if let Some(node) = node {
            prop_assert!(show(&node).len() < 100_000);
        }
    }
}
