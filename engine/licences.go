package main

import (
	_ "embed"
	"fmt"
	"io"
	"os"
)

// licences are the texts of everything in this program that isn't its own.
//
//go:embed licences.txt
var licences string

const (
	cudaLicenceTitle = "==== NVIDIA CUDA: libcudart and libcublas (beside libggml-cuda.so, in builds with CUDA)"
	noCUDALicence    = "The text isn't here: the toolkit of this build had none as EULA.txt, so %s is missing. It is at https://docs.nvidia.com/cuda/eula/."
)

// printLicences prints them, and NVIDIA's where the backends that the settings name include CUDA's.
func printLicences(w io.Writer, environ []string) {
	fmt.Fprint(w, licences)
	dir := besideProgram("lib")
	if c, err := loadConfig(nil, environ); err == nil {
		dir = c.BackendDir
	}
	if _, err := os.Stat(dir + "/libggml-cuda.so"); err != nil {
		return
	}
	// Not cleaned: where dir is a link, ".." is above what it leads to, as build-llama.sh leaves it.
	for _, path := range []string{dir + "/LICENSE.nvidia", dir + "/../LICENSE.nvidia"} {
		if text, err := os.ReadFile(path); err == nil {
			fmt.Fprintf(w, "\n%s\n\n%s\n", cudaLicenceTitle, text)
			return
		}
	}
	fmt.Fprintf(w, "\n%s\n\n"+noCUDALicence+"\n", cudaLicenceTitle, dir+"/LICENSE.nvidia")
}
