/** What `swarmctl completion` prints. Each script asks `swarmctl __complete` and knows no word of swarmctl's itself. */

const BASH = `# bash completion for swarmctl. Load it with:  source <(swarmctl completion bash)
_swarmctl() {
  local line=\${COMP_LINE:0:COMP_POINT} current prefix candidate
  local -a words
  read -ra words <<<"$line"
  [[ $line == *[[:space:]] ]] && words+=("")
  current=\${words[\${#words[@]}-1]}
  # Readline replaces what follows the last of its word breaks.
  prefix=\${current%"\${current##*[=:]}"}
  COMPREPLY=()
  while IFS=$'\\t' read -r candidate _; do
    if [[ $candidate == :files ]]; then compopt -o default; return; fi
    COMPREPLY+=("\${candidate#"$prefix"}")
  done < <("\${COMP_WORDS[0]}" __complete "\${words[@]:1}" 2>/dev/null)
  [[ \${#COMPREPLY[@]} -eq 1 && \${COMPREPLY[0]} == *[=:] ]] && compopt -o nospace
}
complete -F _swarmctl swarmctl
`;

const ZSH = `#compdef swarmctl
# zsh completion for swarmctl. Load it with:  source <(swarmctl completion zsh)
_swarmctl() {
  local -a lines described
  local line
  lines=("\${(@f)$("\${words[1]}" __complete "\${(@)words[2,CURRENT]}" 2>/dev/null)}")
  if [[ \${lines[1]} == :files ]]; then _files; return; fi
  for line in "\${lines[@]}"; do
    [[ -n $line ]] || continue
    if [[ $line == *$'\\t'* ]]; then described+=("\${\${line%%$'\\t'*}//:/\\\\:}:\${line#*$'\\t'}")
    else described+=("\${line//:/\\\\:}"); fi
  done
  _describe -t swarmctl swarmctl described
}
# From a file of the function path it is loaded by the first word that is to be completed.
if [[ \${funcstack[1]} == _swarmctl ]]; then _swarmctl; else compdef _swarmctl swarmctl; fi
`;

const FISH = `# fish completion for swarmctl. Load it with:  swarmctl completion fish | source
function __swarmctl_complete
  set -l words (commandline -opc) (commandline -ct)
  set -l lines ($words[1] __complete $words[2..-1] 2>/dev/null)
  if test "$lines[1]" = ":files"
    __fish_complete_path (commandline -ct)
  else
    printf '%s\\n' $lines
  end
end
complete -c swarmctl -f -a '(__swarmctl_complete)'
`;

/** By the shell's name. */
export const COMPLETION_SCRIPTS: Readonly<Record<string, string>> = { bash: BASH, zsh: ZSH, fish: FISH };
