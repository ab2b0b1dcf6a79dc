import { BlockList, isIP, isIPv6 } from 'node:net'
import { availableParallelism } from 'node:os'
import { webhookKey } from './outbox/webhook-signature.ts'

/** Where Tollgate runs: `dev` adds demo data and practice backends and stays on loopback, `serve` is production. */
export type Mode = 'dev' | 'serve'

/** What a parser makes of the text of a setting. `reason` completes the sentence "<name> …". */
export type Parsed<T> = { readonly value: T } | { readonly reason: string }

/** How a kind of setting is read; `expects` completes the sentence "Set it to …". */
export interface Parser<T> {
  readonly expects: string
  parse(text: string): Parsed<T>
}

/** A whole number within bounds; digits only, so that "1e3" or "10s" is an error instead of a surprise. */
export function integer(min: number, max: number): Parser<number> {
  const expects = `a whole number from ${min} to ${max}`
  return {
    expects,
    parse(text) {
      if (!/^-?\d+$/.test(text)) return { reason: 'is not a whole number' }
      const value = Number(text)
      if (value < min) return { reason: `is below ${min}` }
      if (value > max) return { reason: `is above ${max}` }
      return { value }
    },
  }
}

/** A whole number within bounds, or 0, which switches something off. */
export function zeroOr(min: number, max: number): Parser<number> {
  const within = integer(min, max)
  return {
    expects: `0 or ${within.expects}`,
    parse: (text) => (text === '0' ? { value: 0 } : within.parse(text)),
  }
}

/** A number of processes; "auto", or 0, is one for each core that this process may use. */
export const workers: Parser<number> = {
  expects: 'a whole number from 1 to 128, or "auto" for one for each core',
  parse: (text) => (text === 'auto' || text === '0' ? { value: availableParallelism() } : integer(1, 128).parse(text)),
}

/** A decimal number within bounds. */
export function decimal(min: number, max: number): Parser<number> {
  return {
    expects: `a number from ${min} to ${max}`,
    parse(text) {
      if (!/^\d+(\.\d+)?$/.test(text)) return { reason: 'is not a decimal number' }
      const value = Number(text)
      return value < min || value > max ? { reason: `is not between ${min} and ${max}` } : { value }
    },
  }
}

/** `true` or `false`, and nothing that only looks like it. */
export const boolean: Parser<boolean> = {
  expects: 'true or false',
  parse: (text) =>
    text === 'true' ? { value: true } : text === 'false' ? { value: false } : { reason: 'is neither true nor false' },
}

/** Any text of at most 4096 characters. */
export const text: Parser<string> = {
  expects: 'a text of at most 4096 characters',
  parse: (value) => (value.length > 4096 ? { reason: 'is longer than 4096 characters' } : { value }),
}

/** A path, absolute or from the working directory. */
export const path: Parser<string> = { ...text, expects: 'a path' }

/** One of a closed list. */
export function oneOf<const T extends string>(...choices: readonly T[]): Parser<T> {
  return {
    expects: `one of ${choices.join(', ')}`,
    parse(value) {
      const choice = choices.find((candidate) => candidate === value)
      return choice === undefined ? { reason: 'is not one of the choices' } : { value: choice }
    },
  }
}

/** Some of a closed list, separated by commas. */
export function someOf<const T extends string>(...choices: readonly T[]): Parser<readonly T[]> {
  const one = oneOf(...choices)
  return {
    expects: `some of ${choices.join(', ')}, separated by commas`,
    parse: (value) => listOf(value, (item) => one.parse(item)),
  }
}

/** Texts separated by commas, each without spaces around it. */
export const texts: Parser<readonly string[]> = {
  expects: 'texts separated by commas',
  parse: (value) => listOf(value, (item) => (item === '' ? { reason: 'is empty' } : text.parse(item))),
}

/** URLs with one of the schemes, separated by commas. */
export function urls(...schemes: readonly string[]): Parser<readonly string[]> {
  const one = url(...schemes)
  return {
    expects: `URLs separated by commas, each ${one.expects.slice('a URL '.length)}`,
    parse: (value) => listOf(value, (item) => one.parse(item)),
  }
}

/** Addresses and networks of IPv4 and IPv6, separated by commas. */
export const networks: Parser<readonly string[]> = {
  expects: 'addresses or networks such as 10.0.0.0/8, separated by commas',
  parse: (value) =>
    listOf(value, (item) => {
      const [address = '', bits, ...rest] = item.split('/')
      const longest = isIPv6(address) ? 128 : 32
      const isNetwork = bits === undefined || (/^\d{1,3}$/.test(bits) && Number(bits) <= longest)
      return isIP(address) !== 0 && isNetwork && rest.length === 0 ? { value: item } : { reason: 'is no network' }
    }),
}

function listOf<T>(value: string, parse: (item: string) => Parsed<T>): Parsed<readonly T[]> {
  const values: T[] = []
  for (const item of value.split(',').map((part) => part.trim())) {
    const parsed = parse(item)
    if ('reason' in parsed) return { reason: `holds ${JSON.stringify(item)}, which ${parsed.reason}` }
    values.push(parsed.value)
  }
  return { value: values }
}

/** A URL with one of the schemes; kept as written, since drivers read more from it than `URL` keeps. */
export function url(...schemes: readonly string[]): Parser<string> {
  const list = schemes.map((scheme) => `${scheme}://`).join(' or ')
  return {
    expects: `a URL that starts with ${list}`,
    parse(value) {
      if (!schemes.some((scheme) => value.startsWith(`${scheme}://`))) return { reason: `does not start with ${list}` }
      return URL.canParse(value) ? { value } : { reason: 'is not a valid URL' }
    },
  }
}

/** A secret that travels in a header: visible ASCII, with a minimum length. */
export function secret(minLength: number): Parser<string> {
  return {
    expects: `at least ${minLength} random letters and digits, for example from "openssl rand -hex 32"`,
    parse(value) {
      if (value.length < minLength) return { reason: `is shorter than ${minLength} characters` }
      if (value.length > 512) return { reason: 'is longer than 512 characters' }
      return /^[\x21-\x7e]+$/.test(value) ? { value } : { reason: 'holds characters that no header can carry' }
    },
  }
}

/** A secret that signs webhooks, in the form of Standard Webhooks. */
export const webhookSecret: Parser<string> = {
  expects: '"whsec_" and at least 24 random bytes as Base64, for example from "echo whsec_$(openssl rand -base64 32)"',
  parse: (value) => (webhookKey(value) === undefined ? { reason: 'is no secret of Standard Webhooks' } : { value }),
}

/** The address of a server, without a path. */
export const origin: Parser<string> = {
  expects: 'http:// or https:// with a host and perhaps a port, without a path',
  parse(value) {
    const isOrigin = /^https?:/.test(value) && URL.canParse(value) && new URL(value).origin === value
    return isOrigin ? { value } : { reason: 'is not an address without a path' }
  },
}

/** Which credential goes to which origin, separated by commas. What is wrong is not shown: it may be the secret itself. */
export const credentialsByOrigin: Parser<readonly OriginCredential[]> = {
  expects: 'pairs separated by commas, each an origin, "=", and "env:NAME" or "file:/path"',
  parse(value) {
    const pairs = value.split(',').map((pair) => /^([^=]+)=(env:[A-Za-z_][A-Za-z0-9_]*|file:\/.+)$/.exec(pair.trim()))
    const credentials = pairs.flatMap((pair) => {
      const [, before = '', reference = ''] = pair ?? []
      return 'value' in origin.parse(before) ? [{ origin: before, reference }] : []
    })
    return credentials.length === pairs.length
      ? { value: credentials }
      : { reason: 'holds something that is no origin and reference' }
  },
}

/** A credential by reference, and the only origin that it is sent to. */
export interface OriginCredential {
  /** scheme://host[:port], without a path. */
  readonly origin: string
  /** "env:NAME" or "file:/path". */
  readonly reference: string
}

/** Origins of browsers, separated by commas. A wildcard is refused: credentials travel on these calls. */
export const origins: Parser<readonly string[]> = {
  expects: 'origins separated by commas, each scheme://host[:port] without a path',
  parse(value) {
    const list = value.split(',').map((origin) => origin.trim())
    const wrong = list.find((origin) => !URL.canParse(origin) || new URL(origin).origin !== origin)
    return wrong === undefined ? { value: list } : { reason: `holds ${JSON.stringify(wrong)}, which is not an origin` }
  },
}

/** Brokers of Kafka, separated by commas, each with its port; IPv6 addresses in brackets. */
export const brokers: Parser<readonly string[]> = {
  expects: 'brokers separated by commas, each host:port',
  parse(value) {
    const list = value.split(',').map((broker) => broker.trim())
    const wrong = list.find((broker) => !isBroker(broker))
    return wrong === undefined ? { value: list } : { reason: `holds ${JSON.stringify(wrong)}, which is not host:port` }
  },
}

function isBroker(text: string): boolean {
  const [, bracketed, plain, port] = /^(?:\[([^\]]+)\]|([^:[\]]+)):(\d{1,5})$/.exec(text) ?? []
  const isHost = bracketed === undefined ? 'value' in host.parse(plain ?? '') : isIPv6(bracketed)
  return isHost && Number(port) >= 1 && Number(port) <= 65_535
}

/** A name that Kafka takes for a topic, and a client for itself. */
export const kafkaName: Parser<string> = {
  expects: 'at most 249 letters, digits, dots, dashes and underscores',
  parse: (value) =>
    /^(?!\.{1,2}$)[A-Za-z0-9._-]{1,249}$/.test(value) ? { value } : { reason: 'is not a name that Kafka takes' },
}

/** An IP address or a host name to listen on. */
export const host: Parser<string> = {
  expects: 'an IP address or a host name',
  parse: (value) =>
    isIP(value) !== 0 || /^(?!-)[A-Za-z0-9.-]{1,253}$/.test(value) ? { value } : { reason: 'is not an address' },
}

const loopback = new BlockList()
loopback.addSubnet('127.0.0.0', 8, 'ipv4')
loopback.addAddress('::1', 'ipv6')

/** True when only this machine can reach a listener on `address`. */
export function isLoopback(address: string): boolean {
  if (address === 'localhost') return true
  const family = isIP(address)
  return family !== 0 && loopback.check(address, family === 4 ? 'ipv4' : 'ipv6')
}
