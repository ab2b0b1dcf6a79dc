import { readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { lintCompose, lintDockerfile } from './deploy-rules.ts'

const dockerfile = readFileSync(new URL('../../deploy/Dockerfile', import.meta.url), 'utf8')
const compose = readFileSync(new URL('../../deploy/compose.yaml', import.meta.url), 'utf8')
const known = new Set(
  'DATABASE_URL REDIS_URL TOLLGATE_ADMIN_KEY KAFKA_BROKERS CORS_ORIGINS LOG_LEVEL OTEL_EXPORTER_OTLP_ENDPOINT'.split(
    ' ',
  ),
)

test('what is in deploy/ keeps every rule', () => {
  expect(lintDockerfile(dockerfile)).toEqual([])
  expect(lintCompose(compose, known)).toEqual([])
})

describe('a Dockerfile is refused with', () => {
  test.each([
    ['root', /USER .*/, 'USER root', 'USER root'],
    ['no user', /USER .*\n/, '', 'USER root'],
    ['an image of any version', /FROM node:\S+-slim\n/, 'FROM node:latest\n', 'FROM node:latest'],
    ['an image without a version', /FROM node:\S+ AS/, 'FROM node AS', 'FROM node:'],
    ['a shell as entry point', /ENTRYPOINT .*/, 'ENTRYPOINT node /app/tollgate.js', 'ENTRYPOINT'],
    ['no health check', /HEALTHCHECK .*\n/, '', 'HEALTHCHECK'],
    ['the sources', /COPY --from=build .*/, 'COPY --from=build /src ./', 'COPY --from=build /src ./'],
    ['a secret', /ENV NODE_ENV/, 'ENV TOLLGATE_ADMIN_KEY=abc NODE_ENV', 'ENV: a secret'],
  ])('%s', (_what, from, to, expected) => {
    expect(dockerfile).toMatch(from)
    expect(lintDockerfile(dockerfile.replace(from, to)).join('\n')).toContain(expected)
  })
})

describe('a compose file is refused with', () => {
  test.each([
    ['a default password', /\$\{REDIS_PASSWORD:\?[^}]*\}\n/, 'redis\n', 'redis: REDISCLI_AUTH'],
    ['a password in a URL', /\$\{POSTGRES_PASSWORD:\?[^}]*\}@/, 'tollgate@', 'tollgate: DATABASE_URL'],
    ['a writable root', /read_only: true/, 'read_only: false', 'tollgate: read_only'],
    ['capabilities', /cap_drop: \[ALL\]/, 'cap_drop: []', 'postgres: cap_drop'],
    ['an image of any version', /redis:7\S+/, 'redis:latest', 'redis: image redis:latest'],
    ['a Redis that forgets', /--appendfsync always/, '--appendfsync everysec', 'redis: appendonly'],
    ['a setting that does not exist', /LOG_LEVEL:/, 'LOG_LEVLE:', 'LOG_LEVLE is no setting'],
    ['a start before its databases', /condition: service_healthy/, 'condition: service_started', 'not for its health'],
  ])('%s', (_what, from, to, expected) => {
    expect(compose).toMatch(from)
    expect(lintCompose(compose.replace(from, to), known).join('\n')).toContain(expected)
  })
})
