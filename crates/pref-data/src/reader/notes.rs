//! What a reader recognized, changed or left aside.

use std::collections::BTreeSet;
use std::fmt;

use super::column_roles::ColumnRole;
use crate::place::Place;
use crate::text::{counted, quoted};

/// Something that a user should know about a file that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Note {
    /// The files of a folder that were read, in this order.
    Files {
        /// Their names.
        read: Vec<String>,
    },
    /// Files and folders of a folder that were not read.
    FilesLeft {
        /// Their names.
        left: Vec<String>,
    },
    /// One split of a `DatasetDict` was read.
    Split {
        /// The split.
        read: String,
        /// The other splits.
        left: Vec<String>,
    },
    /// The rows are single responses with a label.
    Unpaired {
        /// How many are desirable.
        desirable: usize,
        /// How many are undesirable.
        undesirable: usize,
    },
    /// The rows are single responses without a label.
    Demonstrations {
        /// How many records.
        records: usize,
    },
    /// A column is read by a name that is recognized, but not the usual one.
    ReadAs {
        /// The column.
        column: String,
        /// Its role.
        role: ColumnRole,
    },
    /// No column holds the prompt. It is the text that both responses begin with.
    SharedPrompt {
        /// How many records.
        records: usize,
        /// The prompt of the first.
        example: String,
        /// Columns of that record that were not read.
        left: Vec<String>,
    },
    /// Text was read as a message, since other texts of the record are messages.
    TextAsMessage {
        /// How many records.
        records: usize,
    },
    /// Text that is JSON of messages was read as messages.
    JsonText {
        /// How many texts.
        texts: usize,
    },
    /// Responses are whole conversations that do not contain the text of the prompt, which was left aside.
    PromptLeft {
        /// How many records.
        records: usize,
    },
    /// An id occurs more than once. The later records got other ids.
    RepeatedIds {
        /// How many records.
        records: usize,
        /// The first such id.
        id: String,
        /// Its second place.
        place: Place,
    },
    /// Two dialogues of hh-rlhf differ before the last answer.
    EarlyDifference {
        /// How many records.
        records: usize,
    },
    /// Columns that may belong to the prompt are not read.
    PromptColumnsLeft {
        /// The columns.
        left: Vec<String>,
    },
    /// Both responses begin with the text of the prompt.
    RepeatedPrompt {
        /// How many records.
        records: usize,
    },
    /// A response begins with a system message.
    SystemInResponse {
        /// How many records.
        records: usize,
    },
    /// The prompt holds only white space.
    BlankPrompts {
        /// How many records.
        records: usize,
    },
    /// A response holds only white space.
    BlankResponses {
        /// How many records.
        records: usize,
    },
}

impl Note {
    /// Returns whether the user may have meant something else.
    pub fn is_warning(&self) -> bool {
        match self {
            Self::Files { .. }
            | Self::Unpaired { .. }
            | Self::Demonstrations { .. }
            | Self::ReadAs { .. }
            | Self::TextAsMessage { .. }
            | Self::JsonText { .. } => false,
            Self::SharedPrompt { left, .. } => !left.is_empty(),
            _ => true,
        }
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let records = |records: &usize| counted(*records, "record");
        match self {
            Self::Files { read } => write!(f, "reads {}", quoted(read)),
            Self::FilesLeft { left } => write!(f, "leaves {} aside", quoted(left)),
            Self::Split { read, left } => {
                write!(
                    f,
                    "reads the split `{read}` and leaves {} aside; give a split's folder to read it",
                    quoted(left)
                )
            }
            Self::Unpaired { desirable, undesirable } => {
                write!(f, "reads unpaired preferences: {desirable} desirable, {undesirable} undesirable")
            }
            Self::Demonstrations { records: count } => {
                write!(f, "reads demonstrations, which have no label: {}", records(count))
            }
            Self::ReadAs { column, role } => write!(f, "reads `{column}` as {role}"),
            Self::SharedPrompt { records: count, example, left } => {
                write!(
                    f,
                    "no column holds the prompt: in {} it is what both responses begin with, first {example:?}",
                    records(count)
                )?;
                if !left.is_empty() {
                    write!(f, "; columns left aside: {}; data.columns names the prompt's", quoted(left))?;
                }
                if example.contains("\n\nHuman:") {
                    f.write_str("; data.format = \"hh-rlhf\" splits dialogues at the last answer")?;
                }
                Ok(())
            }
            Self::TextAsMessage { records: count } => {
                write!(f, "text next to messages is read as a message in {}", records(count))
            }
            Self::JsonText { texts } => {
                write!(f, "JSON in {} is read as messages", counted(*texts, "text"))
            }
            Self::PromptLeft { records: count } => write!(
                f,
                "in {} the responses are conversations without the text of `prompt`, which is left aside",
                records(count)
            ),
            Self::RepeatedIds { records: count, id, place } => write!(
                f,
                "repeated ids: {count}, first `{id}` at {} {}; the repeated ids get a number",
                place.unit, place.number
            ),
            Self::EarlyDifference { records: count } => write!(
                f,
                "in {} the dialogues differ before the last answer; each response holds all turns from there",
                records(count)
            ),
            Self::PromptColumnsLeft { left } => write!(
                f,
                "leaves {} aside, which may belong to the prompt; data.columns names the columns to read",
                quoted(left)
            ),
            Self::RepeatedPrompt { records: count } => write!(
                f,
                "in {} both responses begin with the text of the prompt, which the model then sees twice",
                records(count)
            ),
            Self::SystemInResponse { records: count } => {
                write!(f, "in {} a response begins with a system message, which is scored", records(count))
            }
            Self::BlankPrompts { records: count } => {
                write!(f, "prompts of white space only in {}", records(count))
            }
            Self::BlankResponses { records: count } => {
                write!(f, "responses of white space only in {}", records(count))
            }
        }
    }
}

/// Notes of a read that is under way.
#[derive(Default)]
pub(super) struct Notes {
    read_as: BTreeSet<(ColumnRole, &'static str)>,
    shared_prompt: Option<(usize, String, Vec<String>)>,
    repeated: Option<(usize, String, Place)>,
    /// Numbers of undesirable and desirable single responses.
    pub(super) unpaired: [usize; 2],
    /// Whether rows without a label are among these.
    pub(super) are_demonstrations: bool,
    pub(super) text_as_message: usize,
    pub(super) json_texts: usize,
    pub(super) prompt_left: usize,
    pub(super) early_difference: usize,
    /// Columns that may belong to the prompt.
    pub(super) left: BTreeSet<&'static str>,
    pub(super) repeated_prompt: usize,
    pub(super) system_in_response: usize,
    pub(super) blank_prompt: usize,
    pub(super) blank: usize,
    of_folder: Vec<Note>,
}

impl Notes {
    /// Returns notes that begin with those on the folder.
    pub(super) fn new(of_folder: Vec<Note>) -> Self {
        Self { of_folder, ..Self::default() }
    }

    /// Notes that `column` is read as `role`, unless every user expects that of its name.
    pub(super) fn read_as(&mut self, role: ColumnRole, column: &str) {
        let is_expected = column == role.name() && !matches!(role, ColumnRole::Input | ColumnRole::System);
        if let Some(name) = role.names().iter().copied().find(|name| *name == column && !is_expected) {
            self.read_as.insert((role, name));
        }
    }

    /// Notes a prompt that two responses share. `left` names the columns of the row that are not read.
    pub(super) fn shared_prompt(&mut self, prompt: &str, left: impl FnOnce() -> Vec<String>) {
        const EXAMPLE: usize = 60;
        match &mut self.shared_prompt {
            Some((records, ..)) => *records += 1,
            None => self.shared_prompt = Some((1, prompt.chars().take(EXAMPLE).collect(), left())),
        }
    }

    pub(super) fn repeated(&mut self, id: &str, place: &Place) {
        match &mut self.repeated {
            Some((records, ..)) => *records += 1,
            None => self.repeated = Some((1, id.to_owned(), place.clone())),
        }
    }

    pub(super) fn finish(self) -> Vec<Note> {
        let mut notes = self.of_folder;
        let [undesirable, desirable] = self.unpaired;
        if self.are_demonstrations {
            notes.push(Note::Demonstrations { records: desirable + undesirable });
        } else if desirable + undesirable > 0 {
            notes.push(Note::Unpaired { desirable, undesirable });
        }
        let read_as = self.read_as.into_iter();
        notes.extend(read_as.map(|(role, column)| Note::ReadAs { column: column.to_owned(), role }));
        notes.extend(self.shared_prompt.map(|(records, example, left)| Note::SharedPrompt {
            records,
            example,
            left,
        }));
        notes.extend(self.repeated.map(|(records, id, place)| Note::RepeatedIds { records, id, place }));
        let counted = |count: usize, note: fn(usize) -> Note| (count > 0).then(|| note(count));
        notes.extend(counted(self.text_as_message, |records| Note::TextAsMessage { records }));
        notes.extend(counted(self.json_texts, |texts| Note::JsonText { texts }));
        notes.extend(counted(self.prompt_left, |records| Note::PromptLeft { records }));
        notes.extend(counted(self.early_difference, |records| Note::EarlyDifference { records }));
        if !self.left.is_empty() {
            let left = self.left.iter().map(|&column| column.to_owned()).collect();
            notes.push(Note::PromptColumnsLeft { left });
        }
        notes.extend(counted(self.repeated_prompt, |records| Note::RepeatedPrompt { records }));
        notes.extend(counted(self.system_in_response, |records| Note::SystemInResponse { records }));
        notes.extend(counted(self.blank_prompt, |records| Note::BlankPrompts { records }));
        notes.extend(counted(self.blank, |records| Note::BlankResponses { records }));
        notes
    }
}
