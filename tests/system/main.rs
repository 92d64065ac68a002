//! The system from outside: the built program, real sockets, real files, real kills. Nothing in here knows how docket
//! works, only what it promises.

mod auth;
mod backups;
mod broker;
mod commands;
mod consumer;
mod copy;
mod crashes;
mod deployment;
mod disk;
mod documents;
mod events;
mod frozen;
mod harness;
mod keys;
mod kill;
mod lanes;
mod letters;
mod life;
mod mail;
mod memory;
mod outages;
mod poison;
mod positions;
mod readme;
mod replicas;
mod roles;
mod shutdown;
mod streams;
mod trial;
mod upgrade;
mod verify;
