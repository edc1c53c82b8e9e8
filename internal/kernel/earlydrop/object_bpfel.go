//go:build 386 || amd64 || arm || arm64 || loong64 || mips64le || mipsle || ppc64le || riscv64

package earlydrop

import _ "embed"

//go:embed earlydrop_bpfel.o
var object []byte

// swapsWords: the machine's byte order is not that of the network.
const swapsWords = true
