//! A scene as SVG. Colours are CSS variables, so that a page decides on light and dark; a file by itself brings its own.

use std::fmt::Write as _;

use super::{Anchor, Ink, SERIES, Scene, Shape, TITLE, WIDTH};

/// The rules every SVG needs, variables of both kinds of light included.
pub const STYLE: &str = "\
:root{--page:#fff;--card:#fff;--words:#1f2328;--quiet:#59636e;--grid:#d8dee4;--s0:#0a58ca;--s1:#c2410c;--s2:#0f766e;--s3:#7c3aed;--s4:#a8155e}
@media(prefers-color-scheme:dark){:root{--page:#0d1117;--card:#161b22;--words:#e6edf3;--quiet:#9aa5b1;--grid:#30363d;--s0:#6cb6ff;--s1:#f69d50;--s2:#56d4bc;--s3:#cba6f7;--s4:#ff8fb8}}
.chart{font-family:system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif;font-size:11.5px}
.chart .t{font-size:13.5px;font-weight:600}
.w{color:var(--words)}.q{color:var(--quiet)}.g{color:var(--grid)}.s0{color:var(--s0)}.s1{color:var(--s1)}.s2{color:var(--s2)}.s3{color:var(--s3)}.s4{color:var(--s4)}
";

fn class(ink: Ink) -> String {
    match ink {
        Ink::Words => "w".to_owned(),
        Ink::Quiet => "q".to_owned(),
        Ink::Grid => "g".to_owned(),
        Ink::Series(i) => format!("s{}", i % SERIES),
    }
}

/// Two decimals at most.
fn n(value: f64) -> String {
    let text = format!("{value:.2}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// The scene for a page that has [`STYLE`].
#[must_use]
pub fn svg(scene: &Scene) -> String {
    write(scene, "")
}

/// The scene as a file.
#[must_use]
pub fn svg_file(scene: &Scene) -> String {
    let back = r#"<rect width="100%" height="100%" fill="var(--page)"/>"#;
    write(scene, &format!("<style>{STYLE}</style>{back}"))
}

fn write(scene: &Scene, before: &str) -> String {
    let file = if before.is_empty() { "" } else { " xmlns=\"http://www.w3.org/2000/svg\"" };
    let mut out = format!(
        "<svg{file} class=\"chart\" role=\"img\" viewBox=\"0 0 {} {}\" aria-label=\"{}\">{before}\n",
        n(WIDTH),
        n(scene.height),
        escape(&scene.label)
    );
    for shape in &scene.shapes {
        // writing into a string cannot fail
        let _ = match shape {
            Shape::Line { points, ink, width, dashed, alpha } => {
                let points = points.iter().map(|(x, y)| format!("{},{}", n(*x), n(*y))).collect::<Vec<_>>().join(" ");
                let dashed = if *dashed { " stroke-dasharray=\"5 4\"" } else { "" };
                let alpha = if *alpha < 1.0 { format!(" opacity=\"{}\"", n(*alpha)) } else { String::new() };
                writeln!(
                    out,
                    "<polyline class=\"{}\" points=\"{points}\" fill=\"none\" stroke=\"currentColor\" stroke-width=\"{}\" \
                     stroke-linejoin=\"round\"{dashed}{alpha}/>",
                    class(*ink),
                    n(*width)
                )
            }
            Shape::Dot { at, radius, ink } => writeln!(
                out,
                "<circle class=\"{}\" cx=\"{}\" cy=\"{}\" r=\"{}\" fill=\"currentColor\"/>",
                class(*ink),
                n(at.0),
                n(at.1),
                n(*radius)
            ),
            Shape::Box { at, size, ink, alpha } => writeln!(
                out,
                "<rect class=\"{}\" x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" fill=\"currentColor\" opacity=\"{}\"/>",
                class(*ink),
                n(at.0),
                n(at.1),
                n(size.0),
                n(size.1),
                n(*alpha)
            ),
            Shape::Words { at, text, anchor, ink, size, .. } => {
                let title = if *size >= TITLE { " t" } else { "" };
                let anchor = match anchor {
                    Anchor::Start => "start",
                    Anchor::Middle => "middle",
                    Anchor::End => "end",
                };
                writeln!(
                    out,
                    "<text class=\"{}{title}\" x=\"{}\" y=\"{}\" text-anchor=\"{anchor}\" fill=\"currentColor\">{}</text>",
                    class(*ink),
                    n(at.0),
                    n(at.1),
                    escape(text)
                )
            }
        };
    }
    out.push_str("</svg>\n");
    out
}

#[cfg(test)]
mod tests {
    use super::super::{Lines, Series};
    use super::*;

    #[test]
    fn a_small_chart() {
        let points = vec![(0.0, 0.5), (10.0, 0.625), (20.0, 0.61)];
        let chart = Lines {
            title: "nDCG@10 <dev>".into(),
            x_label: "step".into(),
            series: vec![Series { name: "this run".into(), points, marked: true }],
            reference: Some((0.5, "before".into())),
        };
        insta::assert_snapshot!(chart.scene().map(|scene| svg(&scene)).unwrap_or_default());
    }
}
