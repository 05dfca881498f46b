//! One value as Open vSwitch's tools print it: `br0`, `"5"`, `10`, `[1, 2]`, `{key="5", remote_ip="10.0.0.1"}`.
//!
//! What needs no quotes has none: a bare word is a string unless it can be something else. Not here: what is printed
//! around it.

use crate::control::source::ovsdb::{Atom, Datum};

/// The value that `text` shows; in words, what is wrong with it.
pub(super) fn parse(text: &str) -> Result<Datum, String> {
    let mut rest = text.trim();
    let datum = if rest.starts_with('[') {
        Datum { keys: items(&mut rest, ']', atom)?, values: None }
    } else if rest.starts_with('{') {
        let pair = |rest: &mut &str| {
            let key = atom(rest)?;
            *rest = rest.trim_start().strip_prefix('=').ok_or("a \"=\" is missing in a map")?;
            Ok((key, atom(rest)?))
        };
        let (keys, values) = items(&mut rest, '}', pair)?.into_iter().unzip();
        Datum { keys, values: Some(values) }
    } else {
        Datum { keys: vec![atom(&mut rest)?], values: None }
    };
    let rest = rest.trim();
    if rest.is_empty() { Ok(datum) } else { Err(format!("{rest:?} is left over behind a value")) }
}

/// The items between the first character and `end`, with commas between them.
fn items<T>(
    rest: &mut &str,
    end: char,
    item: impl Fn(&mut &str) -> Result<T, String>,
) -> Result<Vec<T>, String> {
    let mut found = Vec::new();
    *rest = rest[1..].trim_start();
    while !rest.starts_with(end) {
        found.push(item(rest)?);
        *rest = rest.trim_start();
        match rest.strip_prefix(',') {
            Some(more) => *rest = more.trim_start(),
            None if rest.starts_with(end) => {}
            None => return Err(format!("{end:?} is missing behind a value")),
        }
    }
    *rest = &rest[1..];
    Ok(found)
}

fn atom(rest: &mut &str) -> Result<Atom, String> {
    *rest = rest.trim_start();
    if rest.starts_with('"') {
        // The quotes of Open vSwitch's tools are JSON's.
        let mut strings = serde_json::Deserializer::from_str(rest).into_iter::<String>();
        let string = strings.next().and_then(Result::ok).ok_or("a string has no end")?;
        *rest = &rest[strings.byte_offset()..];
        return Ok(Atom::String(string));
    }
    let end = rest.find([',', '=', ']', '}']).unwrap_or(rest.len());
    let (word, behind) = rest.split_at(end);
    *rest = behind;
    let word = word.trim_end();
    Ok(match word {
        "" => return Err("a value is missing".to_owned()),
        "true" => Atom::Boolean(true),
        "false" => Atom::Boolean(false),
        _ => {
            let number = word.starts_with(|c: char| c.is_ascii_digit() || c == '-');
            let integer = word.parse().ok().filter(|_| number).map(Atom::Integer);
            let real = || word.parse().ok().filter(|_| number).map(Atom::Real);
            let uuid = || word.parse().ok().map(Atom::Uuid);
            integer.or_else(uuid).or_else(real).unwrap_or_else(|| Atom::String(word.to_owned()))
        }
    })
}
