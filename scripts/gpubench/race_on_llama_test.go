//go:build llama && race

package main

const raceDetector = true
