'use strict'
// Runs the conformance cases with KafkaJS. Reads one case a line on standard input and answers one
// line on standard output; ../README.md describes the lines.
//
// KafkaJS reads only in groups, so every read joins a group of its own and seeks. It has gzip inside;
// snappy comes from kafkajs-snappy, lz4 from lz4-napi and zstd from zstd-codec, set in by its own hook.

const readline = require('readline')
const { Kafka, CompressionTypes, CompressionCodecs, ConfigResourceTypes, Partitioners, logLevel } = require('kafkajs')
const { version } = require('kafkajs/package.json')

console.log = console.info = console.warn = (...a) => console.error(...a) // the protocol alone writes to standard output

const TYPES = { none: CompressionTypes.None, gzip: CompressionTypes.GZIP, snappy: CompressionTypes.Snappy, lz4: CompressionTypes.LZ4, zstd: CompressionTypes.ZSTD }

async function installCodecs() {
  CompressionCodecs[CompressionTypes.Snappy] = require('kafkajs-snappy')
  const lz4 = require('lz4-napi')
  CompressionCodecs[CompressionTypes.LZ4] = () => ({
    compress: async encoder => lz4.compressFrame(encoder.buffer),
    decompress: async buffer => lz4.decompressFrame(buffer),
  })
  const zstd = await new Promise(resolve => require('zstd-codec').ZstdCodec.run(z => resolve(new z.Simple())))
  CompressionCodecs[CompressionTypes.ZSTD] = () => ({
    compress: async encoder => Buffer.from(zstd.compress(encoder.buffer)),
    decompress: async buffer => Buffer.from(zstd.decompress(buffer)),
  })
}

const sleep = ms => new Promise(resolve => setTimeout(resolve, ms))

function require_(ok, what) {
  if (!ok) throw new Error(what)
}

// The reference records, as in ../record/record.go.
class Reference {
  constructor(salt, timebase) {
    this.salt = salt
    this.timebase = timebase
  }

  time(i) {
    return this.timebase + 1000 * i
  }

  at(partition, offset) {
    const i = partition * 1000 + offset
    const value = i % 10 === 9 ? null : Buffer.from(`${this.salt}-${i}-${'abcdefghij'.repeat(i % 8)}`)
    const headers = { idx: Buffer.from(String(i)), bin: Buffer.from([0xff, 0xfe, 1]), empty: Buffer.alloc(0) }
    return { partition, offset, timestamp: this.time(i), key: Buffer.from(`key-${i}`), value, headers }
  }

  check(got) {
    const show = r => JSON.stringify({ ...r, key: String(r.key), value: r.value && String(r.value) })
    const want = this.at(got.partition, got.offset)
    require_(show(got) === show(want), `got ${show(got)}, want ${show(want)}`)
  }

  checkRun(got, from, n) {
    got.forEach((r, i) => {
      require_(r.offset === from + i, `record number ${i} has offset ${r.offset}, want ${from + i}`)
      this.check(r)
    })
    require_(got.length === n, `${got.length} records from offset ${from} on, want ${n}`)
  }
}

// A group member whose records wait in a list until they are asked for.
class Member {
  constructor(kafka, group, topic, faults) {
    this.topic = topic
    this.records = []
    this.held = []
    this.target = null // offset of the last seek, until its first batch has come
    this.failure = null
    this.consumer = kafka.consumer({ groupId: group, heartbeatInterval: 300, sessionTimeout: 10000, maxWaitTimeInMs: 250 })
    const on = this.consumer.events
    this.consumer.on(on.GROUP_JOIN, e => { this.held = e.payload.memberAssignment[topic] || [] })
    this.consumer.on(on.REBALANCING, () => { this.held = [] })
    this.consumer.on(on.CRASH, e => { if (!(faults && e.payload.restart)) this.failure = e.payload.error })
  }

  async open(seek) {
    await this.consumer.connect()
    await this.consumer.subscribe({ topics: [this.topic], fromBeginning: true })
    await this.consumer.run({
      autoCommit: false,
      eachBatch: async ({ batch, isStale }) => {
        if (isStale() || (this.target !== null && Number(batch.fetchedOffset) !== this.target)) return
        this.target = null
        for (const m of batch.messages) {
          this.records.push({
            partition: batch.partition, offset: Number(m.offset), timestamp: Number(m.timestamp), key: m.key, value: m.value, headers: m.headers,
          })
        }
      },
    })
    if (seek !== undefined) this.seek(seek)
  }

  seek(offset) {
    this.records = []
    this.target = offset
    this.consumer.seek({ topic: this.topic, partition: 0, offset: String(offset) })
  }

  async poll() {
    for (let i = 0; i < 10 && this.records.length === 0; i++) await sleep(10)
    if (this.failure) throw this.failure
    return this.records.splice(0)
  }

  commit(next) {
    return this.consumer.commitOffsets(Object.entries(next).map(([p, o]) => ({ topic: this.topic, partition: Number(p), offset: String(o) })))
  }

  close() {
    return this.consumer.disconnect()
  }
}

class Case {
  constructor(params) {
    this.params = params
    this.topic = params.topic
    this.ref = new Reference(params.salt, Number(params.timebase))
    this.deadline = Date.now() + 1000 * Number(params.seconds)
    this.kafka = new Kafka({ clientId: 'conformance', brokers: [params.bootstrap], logLevel: logLevel.INFO, retry: { retries: 5 } })
    this.next = {}
  }

  num(key) {
    return Number(this.params[key])
  }

  inTime(what) {
    require_(Date.now() < this.deadline, `time is up: ${what}`)
  }

  async take(member, n) {
    const got = []
    while (got.length < n) {
      this.inTime(`${got.length} of ${n} records`)
      got.push(...(await member.poll()))
    }
    return got.slice(0, n)
  }

  async withMember(group, seek, f) {
    const m = new Member(this.kafka, group, this.topic, this.params.faults === 'true')
    try {
      await m.open(seek)
      return await f(m)
    } finally {
      await m.close()
    }
  }

  async withAdmin(f) {
    const a = this.kafka.admin()
    await a.connect()
    try {
      return await f(a)
    } finally {
      await a.disconnect()
    }
  }

  // Writes lists of records, one send each; returns the first offset of each answer.
  async write(codec, idempotent, lists) {
    const p = this.kafka.producer({ idempotent, createPartitioner: Partitioners.DefaultPartitioner, allowAutoTopicCreation: false })
    await p.connect()
    try {
      const acked = []
      for (const list of lists) {
        const messages = list.map(r => ({ key: r.key, value: r.value, partition: r.partition, timestamp: String(r.timestamp), headers: r.headers }))
        const answer = await p.send({ topic: this.topic, acks: -1, compression: TYPES[codec], messages })
        acked.push(Number(answer[0].baseOffset))
      }
      return acked
    } finally {
      await p.disconnect()
    }
  }

  async produce() {
    const n = this.num('count')
    const parts = Number(this.params.parts || 1)
    const all = Array.from({ length: n }, (_, o) => this.ref.at(0, o))
    const lists = Array.from({ length: parts }, (_, p) => all.slice(Math.floor((n * p) / parts), Math.floor((n * (p + 1)) / parts)))
    const acked = await this.write(this.params.codec, this.params.case === 'idempotent', lists)
    lists.forEach((list, i) => require_(acked[i] === list[0].offset, `acked offsets ${acked}`))
    await this.start()
  }

  idempotent() {
    return this.produce()
  }

  start() {
    const n = this.num('count')
    return this.withMember(`${this.params.group}-read`, undefined, async m => this.ref.checkRun(await this.take(m, n), 0, n))
  }

  offsets() {
    return this.params.offsets.split(',').map(Number)
  }

  timestamp() {
    return this.withAdmin(async a => {
      const at = async ms => Number((await a.fetchTopicOffsetsByTimestamp(this.topic, ms))[0].offset)
      for (const want of this.offsets()) {
        for (const before of [500, 0]) {
          const got = await at(this.ref.time(want) - before)
          require_(got === want, `offset for time of record ${want} less ${before} ms: ${got}`)
        }
      }
      // KafkaJS answers the end of the log where the broker says that there is none.
      const after = await at(this.ref.time(this.num('count')))
      require_(after === this.num('count'), `offset for a time after the end: ${after}`)
      return this.midbatch()
    })
  }

  midbatch() {
    const offsets = this.offsets()
    return this.withMember(`${this.params.group}-read`, offsets[0], async m => {
      for (const [i, from] of offsets.entries()) {
        if (i > 0) m.seek(from)
        this.ref.checkRun(await this.take(m, 3), from, 3)
      }
    })
  }

  async commit() {
    const { group } = this.params
    const marks = [0, this.num('first'), this.num('count')]
    for (const i of [0, 1]) {
      await this.withMember(group, undefined, async m => {
        const n = marks[i + 1] - marks[i]
        this.ref.checkRun(await this.take(m, n), marks[i], n)
        await m.commit({ 0: marks[i + 1] })
      })
      const at = await this.withAdmin(a => a.fetchOffsets({ groupId: group, topics: [this.topic] }))
      require_(Number(at[0].partitions[0].offset) === marks[i + 1], `committed ${JSON.stringify(at)}, want ${marks[i + 1]}`)
    }
  }

  async group() {
    const n = this.num('partitions')
    for (let p = 0; p < n; p++) this.next[p] = 0
    await this.withMember(this.params.group, undefined, async a => {
      await this.settle(n, [a])
      await this.withMember(this.params.group, undefined, async b => {
        await this.settle(n, [a, b])
        await this.exchange(n, [a, b])
      })
      await this.settle(n, [a])
      await this.exchange(n, [a])
    })
  }

  async settle(n, members) {
    for (;;) {
      for (const m of members) require_((await m.poll()).length === 0, 'records while settling')
      const all = members.flatMap(m => m.held)
      const even = members.every(m => m.held.length === n / members.length)
      if (even && all.length === n && new Set(all).size === n) return
      this.inTime(`shares ${JSON.stringify(members.map(m => m.held))} of ${n} partitions`)
    }
  }

  async exchange(n, members, each = 5) {
    const records = []
    for (let p = 0; p < n; p++) for (let i = 0; i < each; i++) records.push(this.ref.at(p, this.next[p] + i))
    await this.write('none', false, [records])
    for (let got = 0; got < n * each; ) {
      this.inTime(`got ${got} of ${n * each} records`)
      for (const m of members) {
        for (const r of await m.poll()) {
          require_(m.held.includes(r.partition), `got a record of partition ${r.partition}, holds ${m.held}`)
          require_(r.offset === this.next[r.partition], `got ${r.partition}:${r.offset}, want offset ${this.next[r.partition]}`)
          this.ref.check(r)
          this.next[r.partition]++
          got++
        }
      }
    }
    for (const m of members) await m.commit(Object.fromEntries(m.held.map(p => [p, this.next[p]])))
  }

  admin() {
    const { topic } = this
    const { group } = this.params
    return this.withAdmin(async a => {
      require_((await a.describeCluster()).brokers.length > 0, 'cluster without brokers')
      const create = { topics: [{ topic, numPartitions: 3, replicationFactor: 1, configEntries: [{ name: 'retention.ms', value: '12345678' }] }] }
      require_((await a.createTopics(create)) === true, 'topic was there before')
      require_((await a.createTopics(create)) === false, 'creating a topic twice did not fail with topic exists')
      await this.awaitPartitions(a, 3)
      await this.wantConfig(a, '12345678')
      await a.alterConfigs({ resources: [{ type: ConfigResourceTypes.TOPIC, name: topic, configEntries: [{ name: 'retention.ms', value: '23456789' }] }] })
      await this.wantConfig(a, '23456789')
      await a.createPartitions({ topicPartitions: [{ topic, count: 5 }] })
      await this.awaitPartitions(a, 5)
      await a.fetchTopicOffsets(this.params.trim) // deleteTopicRecords knows the leaders only of topics seen before
      await a.deleteTopicRecords({ topic: this.params.trim, partitions: [{ partition: 0, offset: this.params.before }] })
      const listed = async () => (await a.listGroups()).groups.some(g => g.groupId === group)
      require_(await listed(), 'group is not listed')
      const { state } = (await a.describeGroups([group])).groups[0]
      require_(state === 'Empty', `group is ${state}, want Empty`)
      await a.deleteGroups([group])
      require_(!(await listed()), 'deleted group is listed')
      await a.deleteTopics({ topics: [topic] })
      await this.awaitPartitions(a, 0)
    })
  }

  async until(want, ask, what) {
    let got
    for (let i = 0; i < 50; i++) {
      got = await ask()
      if (got === want) return
      await sleep(100)
    }
    throw new Error(`${what} is ${got}, want ${want}`)
  }

  awaitPartitions(a, want) {
    return this.until(want, async () => {
      if (!(await a.listTopics()).includes(this.topic)) return 0
      const { topics } = await a.fetchTopicMetadata({ topics: [this.topic] })
      return topics[0].partitions.filter(p => p.leader >= 0).length
    }, 'number of partitions with leaders')
  }

  wantConfig(a, want) {
    return this.until(want, async () => {
      const got = await a.describeConfigs({ includeSynonyms: false, resources: [{ type: ConfigResourceTypes.TOPIC, name: this.topic, configNames: ['retention.ms'] }] })
      return got.resources[0].configEntries[0].configValue
    }, 'retention.ms')
  }
}

async function main() {
  await installCodecs()
  process.stdout.write(`hello\t${version}\n`)
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const params = Object.fromEntries(line.split('\t').map(f => [f.slice(0, f.indexOf('=')), f.slice(f.indexOf('=') + 1)]))
    let answer = 'pass\t'
    try {
      await new Case(params)[params.case]()
    } catch (e) {
      console.error(e)
      answer = `fail\t${String(e).replace(/\s+/g, ' ')}`
    }
    process.stdout.write(`done\t${answer}\n`)
  }
  process.exit(0)
}

main()
