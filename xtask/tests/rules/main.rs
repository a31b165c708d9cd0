//! The rules of the repository: what ARCHITECTURE.md and CONTRIBUTING.md promise, read off the files.

mod architecture;
mod documentation;
mod repository;
