//! Figures: well-formed whatever the data, and drawn where the numbers say.

mod markup;

use markup::{Element, parse};
use proptest::prelude::*;
use report::figure::{
    Forest, ForestRow, GroupedBars, LineSeries, Lines, MarkRow, Marks, Point, Radar, RadarSeries, SecondAxis,
    Series,
};

/// Coordinates are written with two digits.
const PIXEL: f64 = 0.011;

fn bars(y_range: (f64, f64), values: &[Option<(f64, f64, f64)>]) -> GroupedBars {
    GroupedBars {
        title: "Score by category".into(),
        y_label: "Score (1–10)".into(),
        y_range,
        groups: (0..values.len()).map(|at| format!("group {at}")).collect(),
        series: vec![Series { name: "DPO".into(), values: values.to_vec() }],
    }
}

fn lines(points: Vec<Point>) -> Lines {
    Lines {
        title: "Score along training".into(),
        x_label: "Share of training".into(),
        y_label: "Score".into(),
        y_range: Some((0.0, 10.0)),
        x_ticks: vec![],
        series: vec![LineSeries { name: "DPO".into(), points }],
        second: None,
    }
}

fn drawn<'a>(elements: &'a [Element], name: &str) -> Vec<&'a Element> {
    elements.iter().filter(|element| element.name == name).collect()
}

/// Bars without the paper and the swatches of the legend.
fn bar_rects(elements: &[Element], legend: usize) -> Vec<&Element> {
    drawn(elements, "rect")
        .into_iter()
        .filter(|rect| rect.attribute("class").is_none())
        .skip(legend)
        .collect()
}

#[test]
fn bars_are_as_high_as_their_values() {
    let figure =
        bars((1.0, 9.0), &[Some((5.0, 4.0, 6.0)), Some((9.0, 8.0, 9.0)), None, Some((20.0, 19.0, 21.0))]);
    let svg = figure.to_svg();
    let (elements, _) = parse(svg.as_str());
    let rects = bar_rects(&elements, 1);
    assert_eq!(rects.len(), 3, "nothing is drawn where nothing was measured");
    let [half, full, beyond] = [0, 1, 2].map(|at| rects[at].number("height"));
    assert!((2.0 * half - full).abs() < PIXEL);
    assert!((beyond - full).abs() < PIXEL, "a bar is cut at the edge");
}

#[test]
fn negative_bars_hang_from_zero() {
    let svg = bars((-2.0, 2.0), &[Some((1.0, 0.5, 1.5)), Some((-1.0, -1.5, -0.5))]).to_svg();
    let (elements, _) = parse(svg.as_str());
    let rects = bar_rects(&elements, 1);
    let [up, down] = [rects[0], rects[1]];
    assert!((up.number("y") + up.number("height") - down.number("y")).abs() < PIXEL);
    assert!((up.number("height") - down.number("height")).abs() < PIXEL);
}

#[test]
fn a_figure_says_in_words_what_it_shows() {
    let svg = bars((1.0, 10.0), &[Some((5.0, 4.5, 5.5)), None]).to_svg();
    let (elements, words) = parse(svg.as_str());
    assert_eq!(elements[0].attribute("role"), Some("img"));
    assert_eq!(elements[0].attribute("aria-label"), Some("Score by category"));
    assert!(
        words.iter().any(|words| words.contains("DPO: group 0 5.00 [4.50, 5.50]; group 1 not measured."))
    );
    assert!(words.iter().any(|words| words == "group 0, DPO: 5.00 [4.50, 5.50]"), "a tooltip");
}

#[test]
fn a_grid_of_marks_has_each_mark_in_its_row_and_column() {
    let row = |group: &str, name: &str, kinds: [Option<usize>; 2]| MarkRow {
        group: group.into(),
        name: name.into(),
        marks: kinds.map(|kind| kind.map(|kind| (kind, format!("text {kind}")))).into(),
    };
    let figure = Marks {
        title: "Where it arises".into(),
        kinds: ["arises", "absent", "unseen", "small", "undecided"].map(str::to_owned).into(),
        columns: ["1 epoch", "6 epochs"].map(|name| ("rate 1e-4".to_owned(), name.to_owned())).into(),
        rows: vec![row("IPO falls", "sum", [Some(0), Some(4)]), row("", "mean", [Some(1), None])],
    };
    let svg = figure.to_svg();
    let (elements, words) = parse(svg.as_str());
    assert_eq!(drawn(&elements, "path").len(), 4 + 2, "four signs of the legend, two of the rows");
    assert_eq!(drawn(&elements, "polygon").len(), 1 + 1, "the fifth sign is hollow");
    assert_eq!(words.iter().filter(|words| *words == "rate 1e-4").count(), 1, "a heading over its columns");
    let described = "IPO falls, sum: rate 1e-4, 1 epoch: arises (text 0); rate 1e-4, 6 epochs: undecided (text 4). IPO falls, mean: \
                     rate 1e-4, 1 epoch: absent (text 1); rate 1e-4, 6 epochs: not measured.";
    assert!(words.iter().any(|words| words.contains(described)), "{words:?}");
}

#[test]
fn a_line_runs_through_its_points() {
    let svg = lines(vec![(0.0, 0.0, None), (0.5, 5.0, None), (1.0, 10.0, None)]).to_svg();
    let (elements, _) = parse(svg.as_str());
    // The first polyline is the legend's.
    let points: Vec<(f64, f64)> = drawn(&elements, "polyline")[1]
        .attribute("points")
        .expect("points")
        .split(' ')
        .map(|point| point.split_once(',').expect("x,y"))
        .map(|(x, y)| (x.parse().expect("x"), y.parse().expect("y")))
        .collect();
    let [first, middle, last] = points[..] else { panic!("three points: {points:?}") };
    assert!((first.0 + last.0 - 2.0 * middle.0).abs() < 2.0 * PIXEL);
    assert!((first.1 + last.1 - 2.0 * middle.1).abs() < 2.0 * PIXEL);
    assert!(first.1 > last.1, "up is more");
}

#[test]
fn few_points_have_markers_and_error_bars_and_many_have_a_band() {
    let points = |count: u32| (0..count).map(|at| (f64::from(at), 5.0, Some((4.0, 6.0)))).collect();
    let count = |figure: Lines, name: &str| drawn(&parse(figure.to_svg().as_str()).0, name).len();
    // Of the paths, two draw each error bar with its halo, one each marker, and one the marker in the legend.
    assert_eq!(count(lines(points(5)), "path"), 5 * 3 + 1);
    assert_eq!(count(lines(points(5)), "polygon"), 0);
    assert_eq!(count(lines(points(50)), "path"), 0);
    assert_eq!(count(lines(points(50)), "polygon"), 1);
}

#[test]
fn a_gap_interrupts_a_line() {
    let points = (0..40).map(|at| (f64::from(at), if at == 20 { f64::NAN } else { 5.0 }, None)).collect();
    let svg = lines(points).to_svg();
    assert_eq!(drawn(&parse(svg.as_str()).0, "polyline").len(), 1 + 2);
}

#[test]
fn the_second_axis_has_its_own_scale() {
    let mut figure = lines(vec![(0.0, 5.0, None), (1.0, 5.0, None)]);
    figure.second = Some(SecondAxis {
        y_label: "Loss (nats)".into(),
        y_range: Some((0.0, 1.0)),
        series: vec![LineSeries { name: "loss".into(), points: vec![(0.0, 0.5, None), (1.0, 0.5, None)] }],
    });
    let svg = figure.to_svg();
    let (elements, words) = parse(svg.as_str());
    let points: Vec<_> = drawn(&elements, "polyline")[2..]
        .iter()
        .map(|line| line.attribute("points").expect("points"))
        .collect();
    assert_eq!(points[0], points[1], "the middle of either axis is one height");
    assert!(words.iter().any(|words| words == "loss (right axis)"));
}

#[test]
fn ticks_are_round_numbers() {
    let (_, words) = parse(bars((1.0, 10.0), &[None]).to_svg().as_str());
    for tick in 1..=10 {
        assert!(words.contains(&tick.to_string()), "tick {tick} in {words:?}");
    }
    let (_, words) = parse(bars((-0.2, 0.3), &[None]).to_svg().as_str());
    for tick in ["−0.2", "−0.1", "0.0", "0.1", "0.2", "0.3"] {
        assert!(
            words.iter().any(|word| word.trim_end_matches('0') == tick.trim_end_matches('0')),
            "{words:?}"
        );
    }
}

#[test]
fn empty_figures_are_drawn() {
    parse(bars((0.0, 0.0), &[]).to_svg().as_str());
    let mut empty = lines(vec![]);
    empty.y_range = None;
    parse(empty.to_svg().as_str());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn bars_are_well_formed_whatever_the_data(
        words in "\\PC{0,40}[<>&\"'\n\u{0}]{0,3}",
        low in any::<f64>(),
        high in proptest::num::f64::ANY,
        values in proptest::collection::vec(proptest::option::of((any::<f64>(), proptest::num::f64::ANY, any::<f64>())), 0..6),
    ) {
        let mut figure = bars((low, high), &values);
        figure.title.clone_from(&words);
        figure.groups = vec![words.clone(), words.clone()];
        figure.series.push(Series { name: words, values: vec![] });
        check(figure.to_svg().as_str());
    }

    #[test]
    fn lines_are_well_formed_whatever_the_data(
        words in "\\PC{0,40}[<>&\"'\n\u{0}]{0,3}",
        range in proptest::option::of((any::<f64>(), any::<f64>())),
        points in proptest::collection::vec(
            (proptest::num::f64::ANY, proptest::num::f64::ANY, proptest::option::of((any::<f64>(), any::<f64>()))),
            0..40,
        ),
    ) {
        let mut figure = lines(points.clone());
        figure.title.clone_from(&words);
        figure.y_range = range;
        figure.x_ticks = vec![(f64::NAN, words.clone()), (0.5, words.clone())];
        let series = vec![LineSeries { name: words.clone(), points }];
        figure.second = Some(SecondAxis { y_label: words, y_range: None, series });
        check(figure.to_svg().as_str());
    }
}

/// Well-formed, and every coordinate a number.
fn check(svg: &str) {
    let (elements, _) = parse(svg);
    for element in &elements {
        for name in ["x", "y", "width", "height", "x1", "x2", "y1", "y2"] {
            if element.attribute(name).is_some() {
                assert!(element.number(name).is_finite(), "{element:?}");
            }
        }
        for name in ["d", "points"] {
            let shape = element.attribute(name).unwrap_or_default();
            assert!(!shape.contains("NaN") && !shape.contains("inf"), "{element:?}");
        }
    }
}

fn radar(values: &[Option<f64>]) -> Radar {
    Radar {
        title: "Scores by category".into(),
        value_label: "mean score".into(),
        range: (0.0, 10.0),
        axes: (0..values.len()).map(|at| format!("spoke {at}")).collect(),
        series: vec![RadarSeries { name: "DPO <a>".into(), values: values.to_vec() }],
    }
}

/// The corners of a polygon or polyline.
fn corners(element: &Element) -> Vec<(f64, f64)> {
    let points = element.attribute("points").unwrap();
    let pair = |pair: &str| pair.split_once(',').map(|(x, y)| (x.parse().unwrap(), y.parse().unwrap()));
    points.split(' ').filter_map(pair).collect()
}

#[test]
fn a_radars_points_lie_on_their_spokes_at_their_values() {
    let figure = radar(&[Some(10.0), Some(5.0), Some(0.0), Some(20.0)]);
    let svg = figure.to_svg();
    let (elements, _) = parse(svg.as_str());
    let rim = drawn(&elements, "polygon").into_iter().map(corners).next_back().unwrap();
    let ring = drawn(&elements, "polyline").into_iter().map(corners).next_back().unwrap();
    assert_eq!((rim.len(), ring.len()), (4, 5), "the line is closed");
    let centre = ((rim[1].0 + rim[3].0) / 2.0, (rim[0].1 + rim[2].1) / 2.0);
    let near =
        |one: (f64, f64), two: (f64, f64)| (one.0 - two.0).abs() < PIXEL && (one.1 - two.1).abs() < PIXEL;
    assert!(near(ring[0], rim[0]), "10 of 10 is at the rim: {ring:?} {rim:?}");
    assert!(near(ring[1], ((rim[1].0 + centre.0) / 2.0, centre.1)), "5 of 10 is half-way");
    assert!(near(ring[2], centre));
    assert!(near(ring[3], rim[3]), "what lies beyond is drawn at the rim");
    assert!(near(ring[4], ring[0]));
    assert!(svg.as_str().contains("<title>spoke 1, DPO &lt;a&gt;: 5.00</title>"));
}

#[test]
fn a_radar_is_open_beside_a_spoke_without_a_value() {
    let svg = radar(&[Some(1.0), None, Some(3.0), Some(4.0), Some(f64::NAN)]).to_svg();
    let (elements, _) = parse(svg.as_str());
    // One line in the legend, one between the two neighbours that are there.
    assert_eq!(drawn(&elements, "polyline").len(), 2);
    assert!(svg.as_str().contains("spoke 1 not measured; spoke 2 3.00"));
    for odd in [&[][..], &[None], &[Some(1.0)], &[Some(1.0), Some(2.0)]] {
        parse(radar(odd).to_svg().as_str());
    }
}

fn forest(rows: Vec<(f64, f64, f64)>, truth: Option<f64>) -> Forest {
    let row = |(at, difference): (usize, (f64, f64, f64))| ForestRow {
        name: format!("Question {at}?"),
        note: "a − b".into(),
        difference,
        truth,
        answer: "yes".into(),
    };
    Forest {
        title: "Answers".into(),
        x_label: "Difference, points".into(),
        value_label: "Difference".into(),
        truth_label: truth.map(|_| "Truth".into()),
        rows: rows.into_iter().enumerate().map(row).collect(),
    }
}

#[test]
fn intervals_of_a_forest_plot_are_where_their_numbers_say() {
    let svg = forest(vec![(1.0, 0.5, 1.5), (-1.0, -1.5, -0.5)], Some(0.5)).to_svg();
    let (elements, _) = parse(svg.as_str());
    // A stem and two caps a row.
    let stems: Vec<Vec<f64>> = drawn(&elements, "polyline")
        .into_iter()
        .step_by(3)
        .map(|stem| {
            let points = stem.attribute("points").unwrap();
            points.split(' ').map(|point| point.split(',').next().unwrap().parse().unwrap()).collect()
        })
        .collect();
    let zero =
        drawn(&elements, "line").into_iter().find(|line| line.attribute("class") == Some("axis")).unwrap();
    let zero = zero.number("x1");
    let [right, left] = [&stems[0], &stems[1]];
    assert!(right[0] > zero && left[1] < zero);
    assert!(((right[0] - zero) - (zero - left[1])).abs() < 2.0 * PIXEL, "{stems:?} around {zero}");
    assert!(((right[1] - right[0]) - (right[0] - zero) * 2.0).abs() < 4.0 * PIXEL, "{stems:?} around {zero}");
    // Two differences, two true values, and the legend.
    assert_eq!(drawn(&elements, "path").len(), 6);
}

proptest! {
    #[test]
    fn forest_plots_are_well_formed(
        rows in prop::collection::vec((any::<f64>(), any::<f64>(), any::<f64>()), 0..5),
        truth in prop::option::of(any::<f64>()),
    ) {
        parse(forest(rows, truth).to_svg().as_str());
    }
}
