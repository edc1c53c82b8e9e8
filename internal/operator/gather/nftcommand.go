package gather

import (
	"path"
	"slices"
	"strings"
)

// An nftCommand is what a command of nft(8) in a unit of systemd loads.
type nftCommand struct {
	file     string   // option -f; "": none
	includes []string // options -I
	text     string   // the commands in its arguments
}

// parseNft reads a command of a unit. It is not understood if it may run nft in another way than directly: in a shell or a script; or if
// what it loads is no plain file.
func parseNft(command string) (parsed nftCommand, understood bool) {
	words := strings.Fields(strings.TrimLeft(command, "-:+!"))                               // prefixes, systemd.service(5)
	if len(words) == 0 || path.Base(words[0]) != "nft" || strings.HasPrefix(words[0], "@") { // "@": its name follows
		return parsed, !strings.Contains(command, "nft")
	}
	words = words[1:]
	for len(words) > 0 && strings.HasPrefix(words[0], "-") {
		option, value, has := cutOption(words[0])
		words = words[1:]
		switch option {
		case "-f", "--file", "-I", "--includepath":
			if !has {
				if len(words) == 0 {
					return parsed, false
				}
				value, words = words[0], words[1:]
			}
			if !path.IsAbs(value) || strings.ContainsAny(value, `"'\$%`) {
				return parsed, false // standard input, in quotes, a variable
			}
			if option == "-f" || option == "--file" {
				parsed.file = value
			} else {
				parsed.includes = append(parsed.includes, value)
			}
		case "-c", "--check", "-a", "--handle", "-s", "--stateless", "-e", "--echo", "-n", "--numeric":
		default:
			return parsed, false
		}
	}
	parsed.text = strings.Join(words, " ")
	if slices.Contains(words, ";") || strings.Contains(parsed.text, "$") { // another command, or the end of one of nft's; a variable
		return parsed, false
	}
	return parsed, true
}

// cutOption returns an option of getopt_long(3), and its value if that is in the same word.
func cutOption(word string) (option, value string, has bool) {
	const short = 2 // a dash and a letter
	if strings.HasPrefix(word, "--") {
		return strings.Cut(word, "=")
	}
	if len(word) > short && (word[1] == 'f' || word[1] == 'I') {
		return word[:short], word[short:], true
	}
	return word, "", false
}
