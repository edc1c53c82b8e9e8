package main

import (
	"errors"
	"strings"

	"github.com/urfave/cli/v2"

	"ocf-clusterip/internal/clusterip"
	"ocf-clusterip/internal/metadata"
	"ocf-clusterip/internal/ocf"
)

// The resource's parameters as flags of the commands for people. A flag is named as the parameter, with hyphens.

// hashParameters say which bucket a packet is in.
func hashParameters() []string {
	return []string{"hashmode", "hash_seed", "hash_compat", "hash_prefix4", "hash_prefix6", "services"}
}

// macParameters say which MAC stands for the address.
func macParameters() []string { return []string{"ip", "mac_mode", "mac"} }

func flagOf(parameter string) string { return strings.ReplaceAll(parameter, "_", "-") }

// given are those of the parameters that are given as flags, by name.
func given(ctx *cli.Context, parameters []string) map[string]string {
	values := map[string]string{}
	for _, name := range parameters {
		if ctx.IsSet(flagOf(name)) {
			values[name] = ctx.String(flagOf(name))
		}
	}
	return values
}

// specOf is the resource that has these parameters (ocf.ErrArgs: somebody has typed them). Unknown ones have no effect.
func specOf(parameters map[string]string, resource string, buckets uint32) (spec clusterip.Spec, unknown []string, err error) {
	values, unknown, parseErr := metadata.Parse(parameters)
	spec, specErr := clusterip.NewSpec(values, resource, ocf.Clone{Buckets: buckets})
	if err := errors.Join(parseErr, specErr); err != nil {
		return spec, unknown, ocf.Errorf(ocf.ErrArgs, "%w", err)
	}
	return spec, unknown, nil
}
