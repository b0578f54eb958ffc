"""The WordPress plugins, played: one service each; `common` has nonces, forms and the page around a widget."""
