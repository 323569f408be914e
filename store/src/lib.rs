//! stub, being written
#![allow(dead_code)]
mod queue_index;
