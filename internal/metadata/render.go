package metadata

import "ocf-clusterip/internal/ocf"

// Render returns the meta-data in the format that OCF_OUTPUT_FORMAT asks for (OCF 1.1, "Global OCF Attributes"): "xml", which is
// also what nothing means, or "text".
func Render(format, version string) ([]byte, error) {
	switch format {
	case "", "xml":
		return XML(version)
	case "text":
		return []byte(Text(version)), nil
	default:
		return nil, ocf.Errorf(ocf.ErrArgs, "OCF_OUTPUT_FORMAT=%s is not one of xml, text", ocf.Quote(format))
	}
}
