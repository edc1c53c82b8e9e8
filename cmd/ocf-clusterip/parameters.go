package main

import (
	"slices"
	"strings"

	"github.com/urfave/cli/v3"

	"ocf-clusterip/internal/metadata"
)

// The resource's parameters as flags of the commands for administrators. A flag is named as the parameter, with hyphens.

// hashParameters decide which bucket a packet is in.
func hashParameters() []string {
	return []string{"hashmode", "hash_seed", "hash_compat", "hash_prefix4", "hash_prefix6", "services"}
}

// macParameters decide which MAC address is shared.
func macParameters() []string { return []string{"ip", "mac_mode", "mac"} }

func allParameters() []string {
	var names []string
	for _, p := range metadata.Parameters() {
		names = append(names, p.Name)
	}
	return names
}

func flagOf(parameter string) string { return strings.ReplaceAll(parameter, "_", "-") }

// parameterFlags are the flags for these parameters. The usage of all begins with the same words.
func parameterFlags(usage string, names []string) []cli.Flag {
	var flags []cli.Flag
	for _, p := range metadata.Parameters() {
		if slices.Contains(names, p.Name) {
			flags = append(flags, textFlag(flagOf(p.Name), usage+"`VALUE` of the parameter "+p.Name+", "+p.Allowed()))
		}
	}
	return flags
}

// given are those of the parameters that are given as flags, by name.
func given(command *cli.Command, parameters []string) map[string]string {
	values := map[string]string{}
	for _, name := range parameters {
		if command.IsSet(flagOf(name)) {
			values[name] = command.String(flagOf(name))
		}
	}
	return values
}
