# fish completion for sample-tool
# Made from the program's own definitions.

complete -c sample-tool -f
complete -c sample-tool -n __fish_use_subcommand -l help -s h -d 'show help'
complete -c sample-tool -n __fish_use_subcommand -l version -s v -d 'print the version'

complete -c sample-tool -n __fish_use_subcommand -a 'start' -d 'begin'
complete -c sample-tool -n '__fish_seen_subcommand_from start' -l help -s h -d 'show help'

complete -c sample-tool -n __fish_use_subcommand -a 'usage help' -d 'print this'
complete -c sample-tool -n '__fish_seen_subcommand_from usage help' -l help -s h -d 'show help'

complete -c sample-tool -n __fish_use_subcommand -a 'stop' -d 'end; it\'s $(reboot) `harmless` [really]: \\o/ *_*'
complete -c sample-tool -n '__fish_seen_subcommand_from stop' -l help -s h -d 'show help'

complete -c sample-tool -n __fish_use_subcommand -a 'ask' -d 'ask for something'
complete -c sample-tool -n '__fish_seen_subcommand_from ask' -l to -x -d 'the ADDRESS[:PORT] to ask; it\'s \\ $(reboot)'
complete -c sample-tool -n '__fish_seen_subcommand_from ask' -l file -r -F -d 'read from FILE'
complete -c sample-tool -n '__fish_seen_subcommand_from ask' -l json -s j -d 'write JSON'
complete -c sample-tool -n '__fish_seen_subcommand_from ask' -l buckets -x -d 'how many there are, N'
complete -c sample-tool -n '__fish_seen_subcommand_from ask' -l ports -x -d 'NAME,... of the switch\'s ports. Those to other switches, too'
complete -c sample-tool -n '__fish_seen_subcommand_from ask' -l colour -x -a 'red green' -d 'of WHICH colour'
complete -c sample-tool -n '__fish_seen_subcommand_from ask' -l mac-mode -x -a 'multicast igmp unicast' -d 'VALUE of mac_mode'
complete -c sample-tool -n '__fish_seen_subcommand_from ask' -l nic -x -a '(__fish_print_interfaces)' -d 'VALUE of nic'
complete -c sample-tool -n '__fish_seen_subcommand_from ask' -l help -s h -d 'show help'

complete -c sample-tool -n __fish_use_subcommand -a 'watch' -d 'look again and again'
complete -c sample-tool -n '__fish_seen_subcommand_from watch' -l help -s h -d 'show help'
