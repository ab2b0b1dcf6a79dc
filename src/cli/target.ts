/**
 * Which gate a command talks to, and as whom. A **profile** is a named answer to that, kept in a file that only its owner may
 * read. What is said closest wins: flag, environment, profile, the demo of this folder, the address of a gate on this machine.
 */
import { readFile } from 'node:fs/promises'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { isObject } from '../is-object.ts'

export interface Target {
  /** With scheme, host and port. */
  readonly address: string
  /** Empty: none is sent. */
  readonly credential: string
  /** PEM of the authorities that the gate's certificate is checked against; undefined: those of the system. */
  readonly ca: string | undefined
  /** Where address and credential come from, for messages. */
  readonly source: string
}

/** What the command line says. */
export interface TargetFlags {
  readonly address?: string
  readonly profile?: string
  readonly keyFile?: string
  readonly caFile?: string
}

export interface Profile {
  readonly address: string
  readonly key?: string
  /** Read at each use, so that a rotated key needs no change here. */
  readonly keyFile?: string
  readonly caFile?: string
}

export interface Profiles {
  /** Name of the one that is used when none is named; empty: none. */
  readonly current: string
  readonly profiles: Readonly<Record<string, Profile>>
}

type Environment = Readonly<Record<string, string | undefined>>

export const defaultAddress = 'http://127.0.0.1:3000'

/** File with the profiles: TOLLGATE_PROFILES, else below XDG_CONFIG_HOME, else below ~/.config. */
export function profilesFile(env: Environment): string {
  const folder = env.XDG_CONFIG_HOME || join(homedir(), '.config')
  return env.TOLLGATE_PROFILES || join(folder, 'tollgate', 'profiles.json')
}

/** The profiles of a file; none when it does not exist. Throws an Error that names the file when it cannot be read. */
export async function readProfiles(file: string): Promise<Profiles> {
  const text = await readFile(file, 'utf8').catch((error: unknown) => {
    if (isObject(error) && error.code === 'ENOENT') return undefined
    throw new Error(`${file} cannot be read: ${error instanceof Error ? error.message : String(error)}`)
  })
  if (text === undefined) return { current: '', profiles: {} }
  try {
    return profilesOf(JSON.parse(text))
  } catch {
    throw new Error(`${file} is no list of profiles: mend it, or remove it and run "tollgate profile set"`)
  }
}

/** Throws an Error that says what to set when a profile is named that is not there, or a file cannot be read. */
export async function targetOf(flags: TargetFlags, env: Environment): Promise<Target> {
  const file = profilesFile(env)
  const { current, profiles } = await readProfiles(file)
  // A credential of the environment is not for the gate of a profile that the flag names.
  const said = flags.profile === undefined ? saidBy(env) : {}
  const named = flags.profile ?? (env.TOLLGATE_PROFILE || current)
  const profile = named === '' ? undefined : profiles[named]
  if (named !== '' && profile === undefined) {
    const known = Object.keys(profiles).join(', ') || 'none'
    throw new Error(`There is no profile "${named}" in ${file} (known: ${known}). Make it with "tollgate profile set".`)
  }
  // What a profile or the demo keeps is for its own address alone.
  const isElsewhere = (flags.address ?? said.address) !== undefined
  const isUnsaid = named === '' && !isElsewhere && said.key === undefined && flags.keyFile === undefined
  const demo = isUnsaid ? await demoOf(env) : undefined
  const {
    address = defaultAddress,
    key = '',
    keyFile,
    caFile,
  } = {
    ...demo,
    ...(isElsewhere ? undefined : profile),
    ...said,
    ...flags,
  }
  const isKeySaid = said.key !== undefined && flags.keyFile === undefined
  return {
    address,
    credential: keyFile === undefined || isKeySaid ? key : await contentOf(keyFile),
    ca: caFile === undefined ? undefined : await contentOf(caFile),
    source: isElsewhere ? 'settings' : sourceOf(named, demo),
  }
}

function sourceOf(profile: string, demo: Profile | undefined): string {
  if (profile !== '') return `profile ${profile}`
  return demo === undefined ? 'settings' : 'the demo of this folder'
}

/** What the environment says; an empty variable says nothing. */
function saidBy(env: Environment): Partial<Profile> {
  return {
    ...(env.TOLLGATE_ADDRESS && { address: env.TOLLGATE_ADDRESS }),
    ...(env.TOLLGATE_KEY && { key: env.TOLLGATE_KEY }),
    ...(env.TOLLGATE_CA_FILE && { caFile: env.TOLLGATE_CA_FILE }),
  }
}

/** What `tollgate dev` of this folder left, when nothing else says where to go. */
async function demoOf(env: Environment): Promise<Profile | undefined> {
  const file = join(env.TOLLGATE_DATA_DIR || '.tollgate', 'demo.json')
  const text = await readFile(file, 'utf8').catch(() => undefined)
  const facts: unknown = text === undefined ? undefined : JSON.parse(text)
  if (!isObject(facts) || typeof facts.address !== 'string' || typeof facts.adminKey !== 'string') return undefined
  return { address: facts.address, key: facts.adminKey }
}

async function contentOf(file: string): Promise<string> {
  try {
    return (await readFile(file, 'utf8')).trim()
  } catch (error) {
    throw new Error(`${file} cannot be read: ${error instanceof Error ? error.message : String(error)}`)
  }
}

function profilesOf(json: unknown): Profiles {
  if (!isObject(json) || typeof json.current !== 'string' || !isObject(json.profiles)) throw new Error('no profiles')
  const entries = Object.entries(json.profiles).map(([name, each]) => [name, profileOf(each)] as const)
  return { current: json.current, profiles: Object.fromEntries(entries) }
}

function profileOf(json: unknown): Profile {
  if (!isObject(json) || typeof json.address !== 'string') throw new Error('no profile')
  const { address, key, keyFile, caFile } = json
  return {
    address,
    ...(typeof key === 'string' && { key }),
    ...(typeof keyFile === 'string' && { keyFile }),
    ...(typeof caFile === 'string' && { caFile }),
  }
}
