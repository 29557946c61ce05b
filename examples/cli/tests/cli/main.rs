//! Runs the built program as a user would: exit codes, messages, what it prints.

mod chat;
mod common;
mod describe;
mod draft;
mod dual;
mod encoders;
mod gpu;
mod preprocess;
mod program;
mod sound;
mod tuned;
mod verify;
mod web;
