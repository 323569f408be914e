//! Delivery as a whole: each rule by itself, and random histories against a model.

mod fixture;
mod model;
mod rules;
