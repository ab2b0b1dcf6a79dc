/**
 * The commands that administer a gate over gRPC: `tollgate <group> <verb>`. They are made from {@link commandRows}; what is
 * here is the way from the words of a command line to a request, and back to words.
 */
import type { Transport } from '@connectrpc/connect'
import { createGrpcTransport, Http2SessionManager } from '@connectrpc/connect-node'
import { type Command, InvalidArgumentError, Option } from 'commander'
import type { CommandRow } from './command-row.ts'
import { commandRows } from './command-rows.ts'
import { confirmed } from './confirm.ts'
import { failureText } from './failure.ts'
import { flagsOf, type RequestFlag } from './request-fields.ts'
import { fileOf, givenFlags, requestOf } from './request-reading.ts'
import { runRow } from './run-row.ts'
import { defaultAddress, type Target, type TargetFlags, targetOf } from './target.ts'

/** What a command may use of its process. */
export interface Terminal {
  readonly env: Readonly<Record<string, string | undefined>>
  readonly stdin: NodeJS.ReadStream
  readonly stdout: { write(text: string): unknown }
  readonly stderr: { write(text: string): unknown }
  /** A signal that is aborted when the user interrupts. */
  interruption(): AbortSignal
}

interface CommonFlags extends TargetFlags {
  readonly json?: boolean
  readonly yes?: boolean
  readonly file?: string
  readonly limit: number
  readonly timeout: number
}

/** Adds a command for each row to `program`. `done` is told the exit code: 0, or 1 for what failed. */
export function addAdministration(program: Command, terminal: Terminal, done: (exitCode: number) => void): void {
  for (const row of commandRows) {
    const [group = '', verb = ''] = row.name.split(' ')
    const known = program.commands.find((each) => each.name() === group)
    const parent = known ?? program.command(group).description(groupSummaries[group] ?? group)
    addRow(parent, verb, row, terminal, done)
  }
}

const groupSummaries: Readonly<Record<string, string>> = {
  orgs: 'organizations: who pays',
  projects: 'projects: consumers that belong together',
  users: 'users: people and workloads that somebody else vouches for',
  consumers: 'consumers: who calls',
  keys: 'API keys',
  services: 'services and their prices',
  policies: 'policies: what is allowed',
  limits: 'limits, quotas and budgets',
  usage: 'what was used, and what it cost',
  audit: 'what was changed, and who was refused what',
  events: 'where changes are told',
}

function addRow(
  group: Command,
  verb: string,
  row: CommandRow,
  terminal: Terminal,
  done: (exitCode: number) => void,
): void {
  const { positional = [] } = row
  const flags = flagsOf(row.method.input, row.resource)
  const command = group.command(verb).description(row.summary)
  for (const path of positional) command.argument(`<${path.slice(path.lastIndexOf('.') + 1).replaceAll('_', '-')}>`)
  const isAsked = ({ protoPath }: RequestFlag): boolean =>
    row.resource === undefined || protoPath !== `${row.resource}.id`
  for (const flag of flags.filter(isAsked)) if (!positional.includes(flag.protoPath)) command.addOption(optionOf(flag))
  addCommonOptions(command, row)
  command.action(async (...args: unknown[]) => {
    const words = args.slice(0, positional.length).map(String)
    const options = command.opts<CommonFlags & Record<string, unknown>>()
    const signal = terminal.interruption()
    let target: Target | undefined
    let connection: { transport: Transport; close(): void } | undefined
    try {
      const given = givenFlags(flags, options, positional, words)
      const request = requestOf(row.method.input, row.resource, await fileOf(options.file, terminal.stdin), given)
      target = await targetOf(options, terminal.env)
      const warning = typeof row.warning === 'function' ? row.warning(request) : row.warning
      const answer = warning === undefined || options.yes === true ? 'yes' : await confirmed(warning, terminal)
      if (answer !== 'yes') return done(answer === 'interrupted' ? 130 : 1)
      connection = connectTo(target)
      await runRow(row, request, {
        transport: connection.transport,
        json: options.json === true,
        limit: options.limit,
        timeoutMs: options.timeout * 1_000,
        signal,
        write: (text) => terminal.stdout.write(text),
      })
      if (row.afterword !== undefined) terminal.stderr.write(`${row.afterword}\n`)
      done(0)
    } catch (error) {
      if (signal.aborted) return done(130)
      terminal.stderr.write(failureText(error, target))
      done(1)
    } finally {
      connection?.close()
    }
  })
}

function addCommonOptions(command: Command, row: CommandRow): void {
  command
    .optionsGroup('Common options:')
    .option('--address <url>', `address of the gate (default: TOLLGATE_ADDRESS, the profile, or ${defaultAddress})`)
    .option('--profile <name>', 'profile to use (default: TOLLGATE_PROFILE, or the current one)')
    .option('--key-file <path>', 'file with the credential (default: TOLLGATE_KEY, or the profile)')
    .option('--ca-file <path>', 'PEM file of the authorities that the gate is checked against')
    .option('--file <path>', 'take the request from a JSON or YAML file, "-" for stdin; flags go over it')
    .option('--json', 'print JSON')
    .addOption(new Option('--timeout <seconds>', 'give up after this long').default(30).argParser(seconds))
  if (row.rows !== undefined) {
    command.addOption(new Option('--limit <rows>', 'show up to so many').default(100).argParser(rowsLimit))
  }
  if (row.warning !== undefined) command.option('-y, --yes', 'do not ask before doing it')
}

function optionOf(flag: RequestFlag): Option {
  const option = new Option(flag.kind === 'boolean' ? `--${flag.name}` : `--${flag.name} <${flag.expects}>`)
  if (flag.choices.length > 0) option.argChoices = [...flag.choices]
  if (flag.kind === 'many' || flag.kind === 'map') {
    option.description = 'may be given several times'
    option.argParser((text: string, before: readonly string[] | undefined) => [...(before ?? []), text])
  }
  return option
}

/** A connection to the gate, with the credential on every call. */
function connectTo({ address, credential, ca }: Target): { transport: Transport; close(): void } {
  const sessionManager = new Http2SessionManager(address, {}, ca === undefined ? {} : { ca })
  const transport = createGrpcTransport({
    baseUrl: address,
    sessionManager,
    interceptors: [
      (next) => (request) => {
        if (credential !== '') request.header.set('authorization', `Bearer ${credential}`)
        return next(request)
      },
    ],
  })
  return { transport, close: () => sessionManager.abort() }
}

function seconds(text: string): number {
  if (!/^\d+(\.\d+)?$/.test(text)) throw new InvalidArgumentError('a number of seconds is expected')
  return Number(text)
}

function rowsLimit(text: string): number {
  if (!/^[1-9]\d{0,5}$/.test(text)) throw new InvalidArgumentError('a number from 1 to 999999 is expected')
  return Number(text)
}
