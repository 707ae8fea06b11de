//! Arguments of calls.

use std::sync::Arc;

use crate::error::{Result, value_error};
use crate::value::Value;

/// Evaluated arguments.
#[derive(Clone, Debug, Default)]
pub(crate) struct CallArgs {
    pub(crate) positional: Vec<Value>,
    pub(crate) keyword: Vec<(Arc<str>, Value)>,
}

impl CallArgs {
    /// Takes a keyword argument out.
    pub(crate) fn take(&mut self, name: &str) -> Option<Value> {
        let at = self.keyword.iter().position(|(known, _)| &**known == name)?;
        Some(self.keyword.remove(at).1)
    }

    /// The arguments of a function whose parameters have these names.
    pub(crate) fn bind<const N: usize>(self, function: &str, names: [&str; N]) -> Result<[Option<Value>; N]> {
        if self.positional.len() > N {
            let given = self.positional.len();
            return value_error(format!("{function}() takes at most {N} arguments ({given} given)"));
        }
        let mut bound = [const { None }; N];
        for (slot, value) in bound.iter_mut().zip(self.positional) {
            *slot = Some(value);
        }
        for (name, value) in self.keyword {
            let at = names.iter().position(|known| *known == &*name);
            match at.map(|at| &mut bound[at]) {
                Some(slot @ None) => *slot = Some(value),
                Some(_) => {
                    return value_error(format!("{function}() got multiple values for argument '{name}'"));
                }
                None => {
                    return value_error(format!("{function}() got an unexpected keyword argument '{name}'"));
                }
            }
        }
        Ok(bound)
    }
}

/// The whole number of an argument.
pub(crate) fn int_argument(value: &Value) -> Result<i128> {
    match value.defined()?.as_int() {
        Some(number) => Ok(number),
        None => value_error(format!("'{}' object cannot be interpreted as an integer", value.type_name())),
    }
}

/// The text of an argument.
pub(crate) fn text_argument(value: &Value) -> Result<&str> {
    match value.defined()? {
        Value::Str(text) => Ok(text),
        other => value_error(format!("expected a str, not '{}'", other.type_name())),
    }
}
