//! Data frames of polars: preferences in, results out.
//!
//! - `with-polars shp SHP.parquet PAIRS.parquet` filters SHP lazily and writes at most 100,000 pairs.
//! - `with-polars deltas RUN` prints the mean Δ of pairs with flipped and with kept labels at each step of a run.
//! - `with-polars scores STUDY` prints the mean score of each kind of policy of a study.

use std::error::Error;
use std::io::Cursor;
use std::path::Path;

use arrow_ipc::reader::FileReader;
use arrow_ipc::writer::FileWriter;
use polars::prelude::*;
use pref_data::arrow_array::RecordBatch;
use pref_data::{
    DEFAULT_ANNOTATOR, Format, Pair, PreferenceRecord, ReadOptions, ScoreRatio, annotator_view, pair_batch,
    read_record_batches, write_pairs,
};

type Failure = Box<dyn Error>;

/// The most pairs of SHP.
const PAIRS: u32 = 100_000;

/// Reads the rows of a frame as a file with its columns would be read, and prints what was recognized.
fn records(frame: LazyFrame, options: &ReadOptions) -> Result<Vec<PreferenceRecord>, Failure> {
    let mut bytes = Vec::new();
    IpcWriter::new(&mut bytes).finish(&mut frame.collect()?)?;
    let batches = FileReader::try_new(Cursor::new(bytes), None)?.collect::<Result<Vec<RecordBatch>, _>>()?;
    let (records, report) = read_record_batches("the data frame", &batches, options)?;
    for note in &report.notes {
        println!("{note}");
    }
    Ok(records)
}

/// Returns pairs as a frame with the columns `id`, `prompt`, `chosen`, `rejected` and `domain`.
fn frame(pairs: &[Pair]) -> Result<DataFrame, Failure> {
    let batch = pair_batch(pairs)?;
    let mut writer = FileWriter::try_new(Vec::new(), &batch.schema())?;
    writer.write(&batch)?;
    Ok(IpcReader::new(Cursor::new(writer.into_inner()?)).finish()?)
}

/// Returns the pairs of SHP in which one comment has more than twice the votes of the other. Other rows are not read.
fn clear_pairs(shp: &Path) -> Result<Vec<Pair>, Failure> {
    let rows = scan(shp)?.filter(col("score_ratio").gt(lit(2.0))).limit(PAIRS);
    let records = records(rows, &ReadOptions::new(Format::Shp(ScoreRatio::PAPER)))?;
    Ok(annotator_view(&records, DEFAULT_ANNOTATOR)?.0)
}

/// Returns the mean Δ (nats, without β) at each step of a run, for kept and for flipped labels.
fn mean_deltas(run: &Path) -> Result<DataFrame, Failure> {
    let by_label = scan(&run.join("pair_deltas.parquet"))?
        .group_by([col("step"), col("flipped")])
        .agg([col("delta").mean(), len().alias("pairs")]);
    Ok(by_label.sort(["step", "flipped"], SortMultipleOptions::default()).collect()?)
}

/// Returns the mean score of each kind of policy by scorer, over seeds, questions and turns.
fn mean_scores(study: &Path) -> Result<DataFrame, Failure> {
    let kinds = ["scorer", "annotator", "loss", "fraction", "flip_rate", "progress"];
    let by_kind = scan(&study.join("results.parquet"))?
        .group_by(kinds.map(col))
        .agg([col("score").mean(), col("seed").n_unique().alias("seeds")]);
    Ok(by_kind.sort(kinds, SortMultipleOptions::default()).collect()?)
}

fn scan(path: &Path) -> Result<LazyFrame, Failure> {
    let path = path.to_str().ok_or("the path is not UTF-8")?;
    Ok(LazyFrame::scan_parquet(path.into(), ScanArgsParquet::default())?)
}

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["shp", shp, out] => {
            let pairs = clear_pairs(shp.as_ref())?;
            println!("{}", frame(&pairs)?);
            write_pairs(out, &pairs)?;
        }
        ["deltas", run] => println!("{}", mean_deltas(run.as_ref())?),
        ["scores", study] => println!("{}", mean_scores(study.as_ref())?),
        _ => return Err("usage: with-polars shp SHP.parquet OUT | deltas RUN | scores STUDY".into()),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use pref_data::Text;

    use super::*;

    fn write(mut frame: DataFrame, path: &Path) {
        let file = File::create(path).expect("a file");
        ParquetWriter::new(file).finish(&mut frame).expect("written");
    }

    #[test]
    fn clear_pairs_of_shp_make_a_frame() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("shp.parquet");
        let shp = df!(
            "post_id" => ["p", "q", "r"],
            "domain" => ["askbaking_train"; 3],
            "history" => ["Why?", "How?", "When?"],
            "c_root_id_A" => ["a", "c", "e"],
            "c_root_id_B" => ["b", "d", "f"],
            "human_ref_A" => ["Heat.", "Mix.", "Now."],
            "human_ref_B" => ["Luck.", "Stir.", "Later."],
            "score_ratio" => [3.0, 1.5, 4.0],
            "labels" => [1, 1, 0],
        );
        write(shp.expect("columns of one length"), &path);
        let pairs = clear_pairs(&path).expect("two pairs");
        let text = |text: &Text| match text {
            Text::Plain(text) => text.clone(),
            Text::Chat(messages) => messages.iter().map(|message| message.content()).collect(),
        };
        let texts: Vec<[String; 3]> =
            pairs.iter().map(|pair| [&pair.prompt, &pair.chosen, &pair.rejected].map(text)).collect();
        assert_eq!(texts, [["Why?", "Heat.", "Luck."], ["When?", "Later.", "Now."]]);

        let made = frame(&pairs).expect("one form");
        assert_eq!(made.shape(), (2, 5));
        let read = records(made.lazy(), &ReadOptions::new(Format::Pairs)).expect("the same pairs");
        assert_eq!(annotator_view(&read, DEFAULT_ANNOTATOR).expect("labeled").0, pairs);
    }

    #[test]
    fn deltas_are_averaged_by_step_and_label() {
        let folder = tempfile::tempdir().expect("a folder");
        let deltas = df!(
            "step" => [1_u64, 1, 1, 2],
            "epoch" => [0.5, 0.5, 0.5, 1.0],
            "pair" => ["a", "b", "c", "a"],
            "flipped" => [false, true, false, false],
            "delta" => [1.0, -2.0, 3.0, 5.0],
        );
        write(deltas.expect("columns of one length"), &folder.path().join("pair_deltas.parquet"));
        let means = mean_deltas(folder.path()).expect("means");
        let expected = df!(
            "step" => [1_u64, 1, 2],
            "flipped" => [false, true, false],
            "delta" => [2.0, -2.0, 5.0],
            "pairs" => [2_u32, 1, 1],
        );
        assert!(means.equals(&expected.expect("columns of one length")), "{means}");
    }
}
