import { type Command, InvalidArgumentError } from 'commander'

/** Adds `tollgate completion <shell>`, and the hidden command that its scripts ask. */
export function addCompletion(program: Command, write: (text: string) => unknown): void {
  program
    .command('completion')
    .description('print a script that completes commands and flags: bash, zsh or fish')
    .argument('<shell>', 'bash, zsh or fish', shellOf)
    .addHelpText('after', '\nFor bash: source <(tollgate completion bash)')
    .action((shell: Shell) => void write(scripts[shell]))
  program
    .command('complete-words', { hidden: true })
    .argument('[words...]')
    .allowUnknownOption()
    .helpOption(false)
    .action(
      (words: string[]) =>
        void write(
          candidates(program, words)
            .map((each) => `${each}\n`)
            .join(''),
        ),
    )
}

/** What may stand in place of the last word: commands, flags, and the choices of a flag. */
export function candidates(program: Command, words: readonly string[]): string[] {
  let command = program
  for (const word of words.slice(0, -1)) {
    command = command.commands.find((each) => each.name() === word) ?? command
  }
  const typed = words.at(-1) ?? ''
  const before = command.options.find((option) => option.long === words.at(-2))
  if (before?.argChoices !== undefined) return startingWith(typed, before.argChoices)
  if (before !== undefined && !before.isBoolean()) return []
  const names = command.commands.filter((each) => !isHidden(each)).map((each) => each.name())
  const flags = command.options.flatMap(({ long, hidden }) => (long == null || hidden ? [] : [long]))
  return startingWith(typed, typed.startsWith('-') ? flags : names.length > 0 ? names : flags)
}

function startingWith(typed: string, words: readonly string[]): string[] {
  return words.filter((word) => word.startsWith(typed))
}

function isHidden(command: Command): boolean {
  return command.name() === 'complete-words'
}

type Shell = keyof typeof scripts

function shellOf(text: string): Shell {
  if (text === 'bash' || text === 'zsh' || text === 'fish') return text
  throw new InvalidArgumentError('bash, zsh or fish is expected')
}

const scripts = {
  bash: `_tollgate() {
  local IFS=$'\\n'
  COMPREPLY=($(tollgate complete-words -- "\${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null))
}
complete -o default -F _tollgate tollgate
`,
  zsh: `#compdef tollgate
_tollgate() {
  local -a found
  found=(\${(f)"$(tollgate complete-words -- "\${words[@]:1:$((CURRENT - 1))}" 2>/dev/null)}")
  compadd -a found
}
compdef _tollgate tollgate
`,
  fish: `complete -c tollgate -f -a '(tollgate complete-words -- (commandline -opc)[2..-1] (commandline -ct) 2>/dev/null)'
`,
} as const
