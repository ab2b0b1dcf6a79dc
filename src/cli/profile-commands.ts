import { mkdir, rename, writeFile } from 'node:fs/promises'
import { dirname, resolve } from 'node:path'
import type { Command } from 'commander'
import type { Terminal } from './administration.ts'
import { tableText } from './print.ts'
import { type Profile, type Profiles, profilesFile, readProfiles } from './target.ts'

interface ProfileFlags {
  readonly address: string
  readonly keyFile?: string
  readonly keyStdin?: boolean
  readonly caFile?: string
}

/** Adds `tollgate profile`: the gates that commands may talk to, by name. */
export function addProfileCommands(program: Command, terminal: Terminal, done: (exitCode: number) => void): void {
  const file = profilesFile(terminal.env)
  const group = program.command('profile').description('gates that commands talk to, by name')

  /** Runs to the end; what goes wrong is said in a line. */
  const doing =
    <A extends unknown[]>(work: (...args: A) => Promise<string>) =>
    async (...args: A): Promise<void> => {
      try {
        terminal.stdout.write(await work(...args))
        done(0)
      } catch (error) {
        terminal.stderr.write(`tollgate: ${error instanceof Error ? error.message : String(error)}\n`)
        done(1)
      }
    }

  group
    .command('set <name>')
    .description('make a profile, or replace it; the first one is used from then on')
    .requiredOption('--address <url>', 'address of the gate, such as https://gate.example:3000')
    .option('--key-file <path>', 'file with the credential, read at each use')
    .option('--key-stdin', 'read the credential from standard input and keep it in the profile')
    .option('--ca-file <path>', 'PEM file of the authorities that the gate is checked against')
    .action(
      doing(async (name: string, flags: ProfileFlags) => {
        const { current, profiles } = await readProfiles(file)
        const profile = await profileOf(flags, terminal)
        await write(file, { current: current === '' ? name : current, profiles: { ...profiles, [name]: profile } })
        return `profile ${name} is ${profile.address}\n`
      }),
    )

  group
    .command('use <name>')
    .description('use this profile from now on')
    .action(
      doing(async (name: string) => {
        const known = await readProfiles(file)
        demand(known, name)
        await write(file, { ...known, current: name })
        return `profile ${name} is used from now on\n`
      }),
    )

  group
    .command('list')
    .description('list the profiles')
    .action(
      doing(async () => {
        const { current, profiles } = await readProfiles(file)
        const rows = Object.entries(profiles).map(([name, { address, keyFile, key }]) => ({
          name,
          address,
          credential: keyFile ?? (key === undefined ? 'none' : 'kept here'),
          used: name === current ? 'yes' : '',
        }))
        return tableText(rows, ['name', 'address', 'credential', 'used'])
      }),
    )

  group
    .command('remove <name>')
    .description('forget a profile')
    .action(
      doing(async (name: string) => {
        const known = await readProfiles(file)
        demand(known, name)
        const { [name]: _, ...profiles } = known.profiles
        await write(file, { current: known.current === name ? '' : known.current, profiles })
        return `profile ${name} is forgotten\n`
      }),
    )
}

async function profileOf({ address, keyFile, keyStdin, caFile }: ProfileFlags, terminal: Terminal): Promise<Profile> {
  if (!URL.canParse(address) || !/^https?:$/.test(new URL(address).protocol)) {
    throw new Error('--address expects an http or https URL, such as https://gate.example:3000')
  }
  if (keyFile !== undefined && keyStdin === true) throw new Error('give --key-file or --key-stdin, not both')
  return {
    address,
    ...(keyFile !== undefined && { keyFile: resolve(keyFile) }),
    ...(keyStdin === true && { key: await lineOf(terminal.stdin) }),
    ...(caFile !== undefined && { caFile: resolve(caFile) }),
  }
}

async function lineOf(stdin: AsyncIterable<Buffer>): Promise<string> {
  const chunks: Buffer[] = []
  for await (const chunk of stdin) chunks.push(chunk)
  const [line = ''] = Buffer.concat(chunks).toString().trim().split('\n')
  if (line === '') throw new Error('--key-stdin: standard input holds no credential')
  return line
}

function demand({ profiles }: Profiles, name: string): void {
  if (Object.hasOwn(profiles, name)) return
  throw new Error(`There is no profile "${name}": "tollgate profile list" shows those that there are`)
}

/** Only the owner may read it, as it may hold credentials. */
async function write(file: string, profiles: Profiles): Promise<void> {
  await mkdir(dirname(file), { recursive: true, mode: 0o700 })
  await writeFile(`${file}.new`, `${JSON.stringify(profiles, null, 2)}\n`, { mode: 0o600 })
  await rename(`${file}.new`, file)
}
