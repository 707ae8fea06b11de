//! Decoder-only policies in Hugging Face folders: load, score, generate, save.

#![forbid(unsafe_code)]
