package main

import _ "embed"

// licences are the texts of everything in this program that isn't its own.
//
//go:embed licences.txt
var licences string
