//go:build mips || mips64 || ppc64 || s390x

package earlydrop

import _ "embed"

//go:embed earlydrop_bpfeb.o
var object []byte

// swapsWords: the machine's byte order is not that of the network.
const swapsWords = false
