import { type ChildProcess, spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Admin } from '@platformatic/kafka'
import { eventually } from './eventually.ts'
import { installKafka, type Kafka } from './kafka-install.ts'
import { freePort } from './redis-server.ts'
import { must } from './tools.ts'
import { noteServer } from './used-servers.ts'

export interface KafkaServerOptions {
  /** Default: a free port, kept over restarts. */
  readonly port?: number
}

/** A broker of one node, on loopback. */
export interface KafkaServer {
  /** As KAFKA_BROKERS. */
  readonly brokers: string
  /** Ends the broker and removes its data. */
  stop(): Promise<void>
  /** SIGKILL; resolves when the process is gone. */
  kill9(): Promise<void>
  /** Starts it again on the same port and data. */
  restart(): Promise<void>
}

/** Starts a private broker (KRaft) with topics of three partitions. Resolves when it takes messages. */
export async function startKafkaServer(options: KafkaServerOptions = {}): Promise<KafkaServer> {
  const kafka = await installKafka()
  noteServer(`${kafka.name}, on ${kafka.java}`)
  const folder = await mkdtemp(join(tmpdir(), 'tollgate-kafka-'))
  const port = options.port ?? (await freePort())
  const properties = join(folder, 'server.properties')
  await writeFile(properties, configuration(folder, port, await freePort()))
  const id = randomBytes(16).toString('base64url')
  const format = ['kafka.tools.StorageTool', 'format', '--standalone', '-t', id, '-c', properties]
  await must(kafka.java, [...javaOptions(kafka), ...format], `is ${kafka.jars} a whole Kafka?`)

  let child: ChildProcess | undefined
  const killOnExit = () => child?.kill('SIGKILL')
  process.once('exit', killOnExit)

  async function start(): Promise<void> {
    child = await spawnReady(kafka, properties, `127.0.0.1:${port}`)
  }
  // A broker's own way out waits for other brokers: there are none, and nothing that it holds is needed again.
  async function kill9(): Promise<void> {
    const ending = child
    child = undefined
    if (ending === undefined || ending.exitCode !== null || ending.signalCode !== null) return
    const gone = once(ending, 'exit')
    ending.kill('SIGKILL')
    await gone
  }

  await start()
  return {
    brokers: `127.0.0.1:${port}`,
    kill9,
    restart: start,
    async stop() {
      await kill9()
      process.removeListener('exit', killOnExit)
      await rm(folder, { recursive: true, force: true })
    },
  }
}

function configuration(folder: string, port: number, controllerPort: number): string {
  return `
process.roles=broker,controller
node.id=1
listeners=PLAINTEXT://127.0.0.1:${port},CONTROLLER://127.0.0.1:${controllerPort}
advertised.listeners=PLAINTEXT://127.0.0.1:${port}
controller.listener.names=CONTROLLER
controller.quorum.bootstrap.servers=127.0.0.1:${controllerPort}
log.dirs=${folder}/data
num.partitions=3
offsets.topic.num.partitions=1
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
broker.session.timeout.ms=2000
broker.heartbeat.interval.ms=300
`
}

function javaOptions({ jars }: Kafka): string[] {
  return ['-Xmx256m', '-XX:+UseSerialGC', '-XX:TieredStopAtLevel=1', '-cp', jars]
}

async function spawnReady(kafka: Kafka, properties: string, broker: string): Promise<ChildProcess> {
  const child = spawn(kafka.java, [...javaOptions(kafka), 'kafka.Kafka', properties], {
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let output = ''
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (text: string) => {
      output = (output + text).slice(-4_000)
    })
  }
  try {
    await eventually(
      async () => {
        if (child.exitCode !== null) throw new Error(`Kafka ended with ${child.exitCode}: ${output}`)
        return isReady(broker)
      },
      { giveUpOnError: true, timeoutMs: 60_000, what: () => `Kafka on ${broker}: ${output}` },
    )
    return child
  } catch (error) {
    child.kill('SIGKILL')
    throw error
  }
}

/** A broker that came back is known only when its controller lets it in again. */
async function isReady(broker: string): Promise<boolean> {
  const admin = new Admin({ clientId: 'ready', bootstrapBrokers: [broker], retries: 0, connectTimeout: 1_000 })
  try {
    return (await admin.metadata({ topics: [] })).brokers.size > 0
  } catch {
    return false
  } finally {
    await admin.close()
  }
}
