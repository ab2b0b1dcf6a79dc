import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { availableParallelism, tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { selfSigned } from '../test/support/test-ca.ts'
import { ConfigError, loadConfig } from './config.ts'
import { isLoopback, type Mode } from './config-parsers.ts'
import { variables } from './config-variables.ts'
import { generateKey } from './identity/key-format.ts'

function withCertificate(use: (certPath: string, keyPath: string) => void): void {
  const folder = mkdtempSync(join(tmpdir(), 'tollgate-config-'))
  try {
    const { cert, key } = selfSigned()
    const certPath = join(folder, 'cert.pem')
    const keyPath = join(folder, 'key.pem')
    writeFileSync(certPath, cert)
    writeFileSync(keyPath, key)
    use(certPath, keyPath)
  } finally {
    rmSync(folder, { recursive: true })
  }
}

function problemsOf(env: Record<string, string>, mode: Mode = 'serve') {
  try {
    loadConfig(env, mode)
  } catch (error) {
    if (error instanceof ConfigError) return error
    throw error
  }
  throw new Error('the configuration was accepted')
}

describe('accepts', () => {
  test.each(['dev', 'serve'] as const)('an empty environment in %s', (mode) => {
    const config = loadConfig({}, mode)
    expect(config.server.port).toBe(3000)
    expect(config.server.maxMessageBytes).toBe(4_194_304)
    expect(config.database.url).toBeUndefined()
    expect(config.redis.url).toBeUndefined()
    expect(config.tracing).toBeUndefined()
    expect(isLoopback(config.server.host)).toBe(mode === 'dev')
  })

  test('an empty variable as an absent one', () => {
    expect(loadConfig({ PORT: '', DATABASE_URL: '', HOST: '' }, 'serve')).toEqual(loadConfig({}, 'serve'))
  })

  test('both names of a variable, the main one first', () => {
    expect(loadConfig({ DATABASE_POOL_SIZE: '7' }, 'serve').database.maxConnections).toBe(7)
    expect(
      loadConfig({ DATABASE_POOL_SIZE: '7', DATABASE_MAX_CONNECTIONS: '9' }, 'serve').database.maxConnections,
    ).toBe(9)
  })

  test('the real servers in dev as in serve', () => {
    const env = { DATABASE_URL: 'postgres://u:p@db/tollgate', REDIS_URL: 'redis://cache:6379' }
    for (const mode of ['dev', 'serve'] as const) {
      expect(loadConfig(env, mode).database.url).toBe(env.DATABASE_URL)
      expect(loadConfig(env, mode).redis.url).toBe(env.REDIS_URL)
    }
  })

  test('retention switched off and on', () => {
    expect(loadConfig({}, 'serve').usageRetentionMonths).toBe(0)
    expect(loadConfig({ USAGE_RETENTION_MONTHS: '0' }, 'serve').usageRetentionMonths).toBe(0)
    expect(loadConfig({ USAGE_RETENTION_MONTHS: '2' }, 'serve').usageRetentionMonths).toBe(2)
  })

  test('a list of origins', () => {
    const { server } = loadConfig({ CORS_ORIGINS: 'https://a.example, http://localhost:5173' }, 'serve')
    expect(server.corsOrigins).toEqual(['https://a.example', 'http://localhost:5173'])
  })

  test('issuers of tokens', () => {
    const env = { JWT_ISSUERS: 'https://id.example/realm, http://localhost:8080/dev', JWT_AUDIENCE: 'gate,tollgate' }
    expect(loadConfig({}, 'serve').tokens).toBeUndefined()
    expect(loadConfig({ ...env, JWT_ALGORITHMS: 'RS256, ES256' }, 'serve').tokens).toMatchObject({
      issuers: ['https://id.example/realm', 'http://localhost:8080/dev'],
      audiences: ['gate', 'tollgate'],
      algorithms: ['RS256', 'ES256'],
      clockSkewSeconds: 30,
      trustClaims: false,
    })
  })

  test('a certificate and its key', () => {
    withCertificate((certPath, keyPath) => {
      const config = loadConfig({ TLS_CERT_FILE: certPath, TLS_KEY_FILE: keyPath }, 'serve')
      expect(config.server.tls).toMatchObject({ certPath, keyPath, clientAuth: 'off', trustDomains: [] })
    })
  })

  test('every other variable as a credential of a backend, and none of its own', () => {
    const env = {
      TOLLGATE_ADMIN_KEY: 'a'.repeat(40),
      DATABASE_URL: 'postgres://u:p@db/tollgate',
      DATABASE_POOL_SIZE: '7',
      OTEL_EXPORTER_OTLP_HEADERS: 'authorization=secret',
      PGPASSWORD: 'secret',
      PROVIDER_TOKEN: 'token',
    }
    expect(loadConfig(env, 'serve').credentials).toEqual({ PROVIDER_TOKEN: 'token' })
  })

  test('brokers with the topic that the events go to', () => {
    expect(loadConfig({ KAFKA_TOPIC: 'unused' }, 'serve').events.kafka).toBeUndefined()
    const env = { KAFKA_BROKERS: 'kafka-1:9092, 10.0.0.1:9093,[::1]:9094' }
    expect(loadConfig(env, 'serve').events.kafka).toEqual({
      brokers: ['kafka-1:9092', '10.0.0.1:9093', '[::1]:9094'],
      topic: 'marketplace.consumption.events',
      clientId: 'tollgate',
    })
  })

  test('a registry elsewhere, with what it is for and whose credentials go where', () => {
    expect(loadConfig({ REGISTRY_MODE: 'both' }, 'serve').registry.outside).toBeUndefined()
    const env = { REGISTRY_URL: 'https://registry.example/llm/', REGISTRY_API_KEY: 'k' }
    expect(loadConfig(env, 'serve').registry.outside).toMatchObject({ isTold: true, isSource: false, goneShare: 0.2 })
    const source = {
      ...env,
      REGISTRY_MODE: 'source',
      REGISTRY_INTERVAL_SECONDS: '5',
      REGISTRY_ENDPOINT_CREDENTIALS: 'https://a.example=env:A_KEY, http://b.example:8080=file:/run/secrets/b',
    }
    expect(loadConfig(source, 'serve').registry.outside).toMatchObject({
      url: 'https://registry.example/llm',
      isTold: false,
      isSource: true,
      everyMs: 5_000,
      credentials: [
        { origin: 'https://a.example', reference: 'env:A_KEY' },
        { origin: 'http://b.example:8080', reference: 'file:/run/secrets/b' },
      ],
    })
  })

  test('tracing with sampler and share', () => {
    const env = { OTEL_EXPORTER_OTLP_ENDPOINT: 'http://collector:4318', OTEL_TRACES_SAMPLER_ARG: '0.25' }
    expect(loadConfig(env, 'serve').tracing).toEqual({
      endpoint: 'http://collector:4318',
      serviceName: 'tollgate',
      sampler: 'parentbased_traceidratio',
      ratio: 0.25,
    })
  })
})

describe('refuses', () => {
  test('three wrong settings in one message, each with value, reason and remedy', () => {
    const { message, problems } = problemsOf({ PORT: 'eighty', BREAKER_FAILURES: '0', DATABASE_URL: 'mysql://db' })
    expect(problems.map(({ name }) => name).sort()).toEqual(['BREAKER_FAILURES', 'DATABASE_URL', 'PORT'])
    expect(message).toContain('3 settings are wrong')
    expect(message).toContain('PORT = "eighty": is not a whole number. Set it to a whole number from 0 to 65535.')
    expect(message).toContain('BREAKER_FAILURES = "0": is below 1. Set it to a whole number from 1 to 10000.')
    expect(message).toContain('DATABASE_URL = (set, 10 characters): does not start with postgres:// or postgresql://.')
  })

  test('a wrong secret without showing it', () => {
    const { message } = problemsOf({ TOLLGATE_ADMIN_KEY: 'hunter2', REDIS_URL: 'http://:s3cret@cache' })
    expect(message).not.toContain('hunter2')
    expect(message).not.toContain('s3cret')
    expect(message).toContain('TOLLGATE_ADMIN_KEY = (set, 7 characters): is shorter than 32 characters.')
  })

  test.each(['0.0.0.0', '::', '192.168.1.4', 'example.org'])('demo keys on %s', (host) => {
    expect(problemsOf({ HOST: host }, 'dev').problems.map(({ name }) => name)).toEqual(['HOST'])
  })

  test('ENABLE_RBAC=false where other machines reach the listener', () => {
    expect(problemsOf({ ENABLE_RBAC: 'false' }).problems.map(({ name }) => name)).toEqual(['ENABLE_RBAC'])
    expect(loadConfig({ ENABLE_RBAC: 'false', HOST: '127.0.0.1' }, 'serve').warnings.join()).toContain('NOT enforced')
  })

  const unsaidAudience = 'is missing while JWT_ISSUER is set, and a token for any other service would be good here'
  const inClear = 'is reached in clear, so that others could put their keys in place of its own'
  const oneMissing = 'is missing while the other one of REGISTRY_URL and REGISTRY_API_KEY is set'
  const cases: readonly (readonly [env: Record<string, string>, name: string, reason: string])[] = [
    [{ PORT: '65536' }, 'PORT', 'is above 65535'],
    [{ PORT: '3e3' }, 'PORT', 'is not a whole number'],
    [{ DATABASE_POOL_SIZE: 'x' }, 'DATABASE_POOL_SIZE', 'is not a whole number'],
    [{ USAGE_RETENTION_MONTHS: '1' }, 'USAGE_RETENTION_MONTHS', 'is below 2'],
    [{ ENABLE_RATE_LIMITING: 'yes' }, 'ENABLE_RATE_LIMITING', 'is neither true nor false'],
    [{ LOG_LEVEL: 'loud' }, 'LOG_LEVEL', 'is not one of the choices'],
    [{ OTEL_TRACES_SAMPLER_ARG: '1.5' }, 'OTEL_TRACES_SAMPLER_ARG', 'is not between 0 and 1'],
    [{ REGISTRY_URL: 'https://registry.example' }, 'REGISTRY_API_KEY', oneMissing],
    [{ REGISTRY_API_KEY: 'k' }, 'REGISTRY_URL', oneMissing],
    [{ REGISTRY_MODE: 'pull' }, 'REGISTRY_MODE', 'is not one of the choices'],
    [{ ADVERTISED_URL: 'https://gate.example/v1' }, 'ADVERTISED_URL', 'is not an address without a path'],
    [
      { REGISTRY_ENDPOINT_CREDENTIALS: 'https://a.example=secret' },
      'REGISTRY_ENDPOINT_CREDENTIALS',
      'holds something that is no origin and reference',
    ],
    [
      { REGISTRY_ENDPOINT_CREDENTIALS: 'https://a.example/v1=env:A' },
      'REGISTRY_ENDPOINT_CREDENTIALS',
      'holds something that is no origin and reference',
    ],
    [{ CORS_ORIGINS: '*' }, 'CORS_ORIGINS', 'holds "*", which is not an origin'],
    [{ CORS_ORIGINS: 'https://a.example/' }, 'CORS_ORIGINS', 'holds "https://a.example/", which is not an origin'],
    [{ DEFAULT_DEADLINE_MS: '700000' }, 'DEFAULT_DEADLINE_MS', 'is above MAX_DEADLINE_MS (600000)'],
    [{ TLS_KEY_FILE: import.meta.filename }, 'TLS_CERT_FILE', 'is missing while TLS_KEY_FILE is set'],
    [{ TLS_CERT_FILE: import.meta.filename }, 'TLS_KEY_FILE', 'is missing while TLS_CERT_FILE is set'],
    [{ JWT_ISSUER: 'https://id.example' }, 'JWT_AUDIENCE', unsaidAudience],
    [{ JWT_ISSUER: 'http://id.example', JWT_AUDIENCE: 'a' }, 'JWT_ISSUER', inClear],
    [{ JWT_JWKS_URL: 'https://id.example/keys' }, 'JWT_JWKS_URL', 'stands beside 0 issuers'],
    [{ JWT_ALGORITHMS: 'RS256,HS256' }, 'JWT_ALGORITHMS', 'holds "HS256", which is not one of the choices'],
    [{ JWT_ALGORITHMS: 'none' }, 'JWT_ALGORITHMS', 'holds "none", which is not one of the choices'],
    [{ TLS_CLIENT_AUTH: 'required' }, 'TLS_CLIENT_AUTH', 'needs TLS_CLIENT_CA_FILE'],
    [
      { TLS_CLIENT_AUTH: 'optional', TLS_CLIENT_CA_FILE: import.meta.filename },
      'TLS_CLIENT_AUTH',
      'needs TLS_CERT_FILE and TLS_KEY_FILE',
    ],
    [{ TLS_CLIENT_CA_FILE: import.meta.filename }, 'TLS_CLIENT_CA_FILE', 'has no effect while TLS_CLIENT_AUTH is off'],
    [{ KAFKA_BROKERS: 'kafka' }, 'KAFKA_BROKERS', 'holds "kafka", which is not host:port'],
    [{ KAFKA_BROKERS: 'a:1,b:70000' }, 'KAFKA_BROKERS', 'holds "b:70000", which is not host:port'],
    [{ KAFKA_BROKERS: 'a:1,' }, 'KAFKA_BROKERS', 'holds "", which is not host:port'],
    [{ KAFKA_BROKERS: '::1:9092' }, 'KAFKA_BROKERS', 'holds "::1:9092", which is not host:port'],
    [{ KAFKA_TOPIC: '..' }, 'KAFKA_TOPIC', 'is not a name that Kafka takes'],
    [{ KAFKA_CLIENT_ID: 'a b' }, 'KAFKA_CLIENT_ID', 'is not a name that Kafka takes'],
    [{ HOST: 'a b' }, 'HOST', 'is not an address'],
  ]
  test.each(cases)('%o', (env, name, reason) => {
    expect(problemsOf(env).problems).toEqual([expect.objectContaining({ name, reason })])
  })

  test('several processes with embedded limits, and a demo of several', () => {
    const redis = { REDIS_URL: 'redis://localhost' }
    expect(() => loadConfig({ WORKERS: '2' }, 'serve')).toThrow(/WORKERS = "?2"?: .*Set REDIS_URL/)
    expect(() => loadConfig({ WORKERS: '2', ...redis }, 'dev')).toThrow(/WORKERS = "?2"?: .*tollgate serve/)
    expect(loadConfig({ WORKERS: '2', ...redis }, 'serve').workers).toBe(2)
    expect(loadConfig({ WORKERS: 'auto', ...redis }, 'serve').workers).toBe(availableParallelism())
    expect(loadConfig({}, 'serve').workers).toBe(1)
  })

  test('a certificate and a key that do not belong together', () => {
    withCertificate((certPath) => {
      const { problems } = problemsOf({ TLS_CERT_FILE: certPath, TLS_KEY_FILE: certPath })
      expect(problems.map(({ name }) => name)).toEqual(['TLS_CERT_FILE'])
      expect(problems[0]?.reason).toMatch(/^and TLS_KEY_FILE cannot be used together \(.+\)$/)
    })
  })

  test('an administrator key that the authentication would take for an API key', () => {
    const { problems, message } = problemsOf({ TOLLGATE_ADMIN_KEY: generateKey().key })
    expect(problems).toMatchObject([{ name: 'TOLLGATE_ADMIN_KEY', reason: 'begins like an API key' }])
    expect(message).toContain('(set, 69 characters)')
  })

  test('certificate files that do not exist, each by name', () => {
    const { problems } = problemsOf({ TLS_CERT_FILE: '/nonexistent/cert.pem', TLS_KEY_FILE: '/nonexistent/key.pem' })
    expect(problems.map(({ name }) => name)).toEqual(['TLS_CERT_FILE', 'TLS_KEY_FILE'])
  })
})

test('every default is a value that its own parser accepts', () => {
  for (const { name, defaults, parser } of Object.values(variables)) {
    for (const value of [defaults.dev, defaults.serve]) {
      if (value === undefined || Array.isArray(value)) continue
      expect(parser.parse(String(value)), name).toEqual({ value })
    }
  }
})

test('serve warns of what is not shared or not administered', () => {
  const names = loadConfig({}, 'serve').warnings.map((warning) => warning.split(' ')[0])
  expect(names).toEqual(['TOLLGATE_ADMIN_KEY', 'DATABASE_URL', 'REDIS_URL'])
  expect(loadConfig({}, 'dev').warnings).toEqual([])
})
