//! Margins of pairs in a training run: `pair_deltas.parquet`.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use arrow_array::cast::AsArray;
use arrow_array::types::Float64Type;
use arrow_array::{Array, RecordBatch};
use arrow_schema::DataType;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use crate::dataset::Dataset;
use crate::error::AuditError;

/// Margins of the second half of the first epoch: the policy has learnt from other pairs, and not yet from these.
#[derive(Clone, Debug)]
pub struct PairDeltas {
    path: PathBuf,
    margins: BTreeMap<String, f64>,
}

impl PairDeltas {
    /// Reads the file of a run, as `pref-train` writes it. Pairs that the run itself flipped are left out.
    ///
    /// # Errors
    ///
    /// [`AuditError::Deltas`] for a file that cannot be read or lacks a column.
    pub fn read(path: &Path) -> Result<Self, AuditError> {
        let failed = |problem: String| AuditError::Deltas { path: path.to_owned(), problem };
        let file = File::open(path).map_err(|error| failed(error.to_string()))?;
        let reader = ParquetRecordBatchReaderBuilder::try_new(file).and_then(|builder| builder.build());
        let mut margins = BTreeMap::new();
        for batch in reader.map_err(|error| failed(error.to_string()))? {
            let batch = batch.map_err(|error| failed(error.to_string()))?;
            let column = |name: &str, kind: DataType| {
                let column = batch.column_by_name(name).filter(|column| *column.data_type() == kind);
                column.ok_or_else(|| failed(format!("column `{name}` of type {kind} is missing")))
            };
            let pair = column("pair", DataType::Utf8)?.as_string::<i32>();
            let epoch = column("epoch", DataType::Float64)?.as_primitive::<Float64Type>();
            let delta = column("delta", DataType::Float64)?.as_primitive::<Float64Type>();
            let flipped = column("flipped", DataType::Boolean)?.as_boolean();
            for at in (0..RecordBatch::num_rows(&batch)).filter(|&at| !flipped.value(at)) {
                let is_unseen = epoch.value(at) > 0.5 && epoch.value(at) <= 1.0;
                if is_unseen && delta.value(at).is_finite() {
                    margins.insert(pair.value(at).to_owned(), delta.value(at));
                }
            }
        }
        Ok(Self { path: path.to_owned(), margins })
    }

    /// Returns the pairs of the file with a margin.
    pub(crate) fn of(&self, data: &Dataset) -> Result<Vec<(usize, f64)>, AuditError> {
        let margin = |pair: usize| Some((pair, *self.margins.get(&data.pair_id(pair))?));
        let found: Vec<(usize, f64)> = (0..data.pairs.len()).filter_map(margin).collect();
        if found.is_empty() {
            return Err(AuditError::NoDeltas { deltas: self.path.clone(), path: data.path.clone() });
        }
        Ok(found)
    }
}
