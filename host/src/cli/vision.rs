//! What `detect` and `classify` share: pictures in, one result per picture, errors that stop only their own picture.

use std::collections::VecDeque;
use std::io::Read;
use std::ops::ControlFlow;
use std::panic::resume_unwind;
use std::path::Path;
use std::thread::ScopedJoinHandle;

use super::session::Session;
use super::{Global, output, pictures};
use crate::config::{Options, Task};
use crate::error::{Error, Result};
use crate::pipeline::{Input, Outcome, Output, Params, Request, encode};
use crate::value::{Value, Values};

/// A picture that went through a pipeline.
pub struct Seen {
    /// Its name as given.
    pub name: String,
    /// Pixels per row of the upright picture.
    pub width: u32,
    /// Its rows.
    pub height: u32,
    /// What the pipeline left.
    pub values: Values,
}

/// Errors that every other picture would meet, too.
const HOPELESS: [&str; 6] = [
    "cancelled",
    output::CLOSED,
    "model-not-found",
    "model-invalid",
    "model-not-chosen",
    "backend-unavailable",
];

/// Pictures that are under way at the same time: stages prepare one while the model sees another.
pub const UNDER_WAY: usize = 2;

/// Runs a vision task over pictures and hands each result to `each`, in their order. A picture that fails is reported and
/// the next one goes on; the first error is the command's.
pub fn each_picture(
    global: &Global,
    task: Task,
    model: Option<String>,
    images: Vec<String>,
    options: Options,
    mut each: impl FnMut(Seen) -> Result<()>,
) -> Result<()> {
    let session = Session::start(global)?;
    let progress = pictures::progress(images.len());
    let (session, model, options) = (&session, &model, &options);
    std::thread::scope(|scope| {
        let mut to_come = images.clone().into_iter().skip(1);
        let mut under_way = VecDeque::new();
        each_file(global, images, "picture", |_, name| {
            let seen = match under_way.pop_front() {
                Some(one) => ScopedJoinHandle::join(one).unwrap_or_else(|panic| resume_unwind(panic)),
                // The first one loads the model, and shows how far that is.
                None => look(session, task, model.clone(), name, options),
            };
            while under_way.len() < UNDER_WAY
                && let Some(next) = to_come.next()
            {
                under_way.push_back(scope.spawn(move || look(session, task, model.clone(), &next, options)));
            }
            progress.inc(1);
            seen.and_then(|seen| progress.suspend(|| each(seen)).map_err(|error| error.within(name)))
        })
    })
}

/// Does something with each file, which come numbered from 1. One that fails is reported and the next one goes on; the
/// first error is the command's.
pub fn each_file(
    global: &Global,
    files: Vec<String>,
    what: &str,
    mut each: impl FnMut(usize, &str) -> Result<()>,
) -> Result<()> {
    let mut failed: Option<Error> = None;
    let count = files.len();
    for (at, name) in files.into_iter().enumerate() {
        match each(at + 1, &name) {
            Ok(()) => {}
            Err(error) if HOPELESS.contains(&error.code()) || count == 1 => return Err(error),
            Err(error) => {
                output::report(&error, global.json);
                failed.get_or_insert(error);
            }
        }
    }
    match failed {
        Some(error) => {
            Err(Error::new(error.code(), format!("not every {what} could be processed: see above")))
        }
        None => Ok(()),
    }
}

/// Runs a task on one picture.
pub fn look_at(
    session: &Session,
    task: Task,
    model: Option<String>,
    name: &str,
    options: &Options,
) -> Result<Outcome> {
    let mut values = Values::new();
    values.put("bytes", Value::Bytes(read(name)?));
    let params = Params { options: options.clone(), ..Params::default() };
    let request = Request { task, model, input: Input::Values(values), params };
    session.run(request, &mut |_| ControlFlow::Continue(())).map_err(|error| error.within(name))
}

fn look(session: &Session, task: Task, model: Option<String>, name: &str, options: &Options) -> Result<Seen> {
    let Outcome { output, .. } = look_at(session, task, model, name, options)?;
    let Output::Values(values) = output else {
        return Err(Error::new("internal", "a vision task ended without values"));
    };
    let (width, height) = encode::picture_size(&values);
    Ok(Seen { name: name.to_owned(), width, height, values })
}

/// A file's bytes; an error names it.
pub fn read(name: &str) -> Result<Vec<u8>> {
    if name != "-" {
        return std::fs::read(name).map_err(|e| Error::io(Path::new(name), &e));
    }
    let mut bytes = Vec::new();
    std::io::stdin().read_to_end(&mut bytes).map_err(|e| Error::io("standard input", &e))?;
    Ok(bytes)
}
